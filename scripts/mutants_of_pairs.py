"""Mistakes in learning from pairs of answers, and in choosing among many.

The same kind of list as `mutant_catalogue`.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_ALGORITHMS = "src/tutelage/algorithms/"
_TRAINERS = "src/tutelage/trainers/"
_PREFERENCE = ("tests/unit/algorithms/test_preference.py",)
_DPO = ("tests/unit/trainers/test_dpo.py",)
_ONLINE = ("tests/unit/trainers/test_online_dpo.py",)
_BEST = ("tests/unit/trainers/test_best_of_n.py",)

MUTANTS = (
    Mutant(
        "dpo-sign",
        _ALGORITHMS + "preference.py",
        "margin = rewards[:, 0] - rewards[:, 1]\n    count",
        "margin = rewards[:, 1] - rewards[:, 0]\n    count",
        "DPO prefers what people rejected.",
        _PREFERENCE,
    ),
    Mutant(
        "dpo-labels-reversed",
        _ALGORITHMS + "preference.py",
        "loss = (p * first + (1 - p) * second).sum() / count",
        "loss = ((1 - p) * first + p * second).sum() / count",
        "Hinge and IPO prefer what people rejected.",
        _PREFERENCE,
    ),
    Mutant(
        "dpo-without-its-reference",
        _ALGORITHMS + "preference.py",
        "rewards = beta * (logprobs - ref_logprobs)",
        "rewards = beta * logprobs",
        "Nothing holds the policy; answers that the model finds likely are chosen.",
        _PREFERENCE,
    ),
    Mutant(
        "dpo-reference-has-a-gradient",
        _ALGORITHMS + "preference.py",
        "    ref_logprobs = ref_logprobs.detach()\n",
        "",
        "The loss is lowered by training the reference, too.",
        _PREFERENCE,
    ),
    Mutant(
        "dpo-smoothing-dropped",
        _ALGORITHMS + "preference.py",
        "margin, label, smoothing=smoothing, offset",
        "margin, label, smoothing=0.0, offset",
        "Conservative DPO trusts every label.",
        _PREFERENCE,
    ),
    Mutant(
        "smoothing-of-other-losses-dropped",
        _ALGORITHMS + "preference.py",
        "return (1 - smoothing) * label + smoothing * (1 - label)",
        "return label",
        "Hinge and IPO trust every label.",
        _PREFERENCE,
    ),
    Mutant(
        "dpo-target-margin-dropped",
        _ALGORITHMS + "preference.py",
        "smoothing=smoothing, offset=target_margin,",
        "smoothing=smoothing, offset=0.0,",
        "SimPO's winner wins by nothing.",
        _PREFERENCE,
    ),
    Mutant(
        "ipo-target-in-other-units",
        _ALGORITHMS + "preference.py",
        "return ((margin - 0.5) / beta).square()",
        "return (margin - 0.5 / beta).square()",
        "IPO's target is in nats and the margin in beta times nats.",
        _PREFERENCE,
    ),
    Mutant(
        "hinge-ends-at-zero",
        _ALGORITHMS + "preference.py",
        "return (1 + target_margin - margin).clamp(min=0)",
        "return (target_margin - margin).clamp(min=0)",
        "The hinge is silent as soon as the better answer leads at all.",
        _PREFERENCE,
    ),
    Mutant(
        "answers-share-a-length",
        _ALGORITHMS + "preference.py",
        "return rewards / lengths",
        "return rewards / lengths.mean(1, keepdim=True)",
        "Both answers are divided by one length, so that length pays as before.",
        _PREFERENCE,
    ),
    Mutant(
        "length-with-the-prompt",
        _TRAINERS + "pairs.py",
        "rows.response_mask.sum(1).view(-1, 2)",
        "rows.attention_mask.sum(1).view(-1, 2)",
        "The mean per token counts the prompt's tokens.",
        _DPO,
    ),
    Mutant(
        "reference-of-the-other-answer",
        _TRAINERS + "pairs.py",
        "replace(pair, reference=(a, b))",
        "replace(pair, reference=(b, a))",
        "Each answer is compared with what the reference thinks of the other one.",
        _DPO,
    ),
    Mutant(
        "soft-labels-hardened",
        _TRAINERS + "pairs.py",
        "logprobs.new_tensor([pair.p_a for pair in pairs])",
        "logprobs.new_tensor([1.0 for pair in pairs])",
        "The first answer is always the better one.",
        _DPO,
    ),
    Mutant(
        "mean-of-means-over-pairs",
        _TRAINERS + "pairs.py",
        "denominator=denominator,",
        "denominator=None,",
        "A pair in a small micro-batch weighs more than one in a large micro-batch.",
        _DPO,
    ),
    Mutant(
        "online-pair-reversed",
        _TRAINERS + "online_dpo.py",
        "JudgedPair(best, worst, p_a)",
        "JudgedPair(worst, best, p_a)",
        "The policy learns to write the worst of its completions.",
        _ONLINE,
    ),
    Mutant(
        "soft-label-of-the-worst",
        _TRAINERS + "online_dpo.py",
        "return 1 / (1 + math.exp(-min(",
        "return 1 / (1 + math.exp(min(",
        "The larger the gap between scores, the more the worse completion is preferred.",
        _ONLINE,
    ),
    Mutant(
        "verdict-of-the-other-completion",
        _TRAINERS + "online_dpo.py",
        "Score(pair.p_a), Score(1 - pair.p_a)",
        "Score(1 - pair.p_a), Score(pair.p_a)",
        "The report shows each judged completion with the other one's score.",
        _ONLINE,
    ),
    Mutant(
        "reference-on-the-wrong-side",
        _TRAINERS + "online_dpo.py",
        "p_a, (of_reference[a], of_reference[b]))",
        "p_a, (-of_reference[a], -of_reference[b]))",
        "As the policy leaves its reference, the loss pushes it further away.",
        _ONLINE,
    ),
    Mutant(
        "worst-of-n",
        _TRAINERS + "best_of_n.py",
        "return max(usable,",
        "return min(usable,",
        "Best of n keeps the worst.",
        _BEST,
    ),
    Mutant(
        "divergence-reversed",
        _TRAINERS + "divergence.py",
        "gap = experience.sampler_logprobs - reference.logprobs(experience)",
        "gap = reference.logprobs(experience) - experience.sampler_logprobs",
        "The divergence from the reference falls as the policy leaves it.",
        ("tests/unit/trainers/test_divergence.py",),
    ),
)
