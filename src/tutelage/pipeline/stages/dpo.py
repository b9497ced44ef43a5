"""Trains a policy on preferences directly.

model ──all pairs, once──> log pi_ref ──┐
preferences ──tokens──> pairs ──────────┴──dpo──> steps ──> metrics, model/
                           └── held-out prompts ──> accuracy and margin, before and after
"""

import math
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from tutelage.config import DPOStage
from tutelage.distributed import Cores
from tutelage.errors import DataError
from tutelage.feedback.exchange import load_feedback
from tutelage.models import Policy
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    generator,
    held_out_prompts,
    new_learner,
    policy_to_train,
    save_policy,
    share_out,
)
from tutelage.records import Preference
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.dpo import dpo
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.pairs import (
    AnswerPair,
    encode_preferences,
    measure_pairs,
    precompute_reference,
)

__all__ = ["run"]

_HELD_OUT = {
    "loss": "held_out_loss",
    "dpo/accuracy": "held_out_accuracy",
    "dpo/margin": "held_out_margin",
    "dpo/kl": "held_out_kl",
}


def run(config: DPOStage, context: StageContext) -> dict[str, float]:
    """Trains, measures on held-out prompts and saves the model."""
    policy, tokenizer, part = policy_to_train(config, context)
    paths = context.resolve_all(config.preferences, "preferences.jsonl")
    preferences = [row for path in paths for row in load_feedback(path)][: config.limit]
    rows, kept_back = _split(preferences, config.held_out, context.seed)
    cores = share_out(context, policy.model, config.lora)
    # Nothing is trained or restored yet: the policy is its own reference.
    training = _prepare(config, context, policy, tokenizer, rows, cores)
    held_out = _prepare(config, context, policy, tokenizer, kept_back, cores)
    steps = max(1, math.ceil(config.epochs * len(training) / config.batch.minibatch))
    source = generator(context)
    optimizer = Optimizer(part.weights, config.optimizer, steps)
    learner = new_learner(context, {"dpo": optimizer}, config.batch, source, cores)
    batches = Shuffled(training, config.batch.minibatch, steps, source)
    speed = Speed()
    with context.checkpoints.track(model=part, learner=learner, batches=batches) as checkpoints:
        for step in dpo(policy, learner, batches, config.dpo, start=batches.taken):
            metrics = _logged(step.metrics)
            metrics["throughput/pairs_per_second"] = speed.read(config.batch.minibatch)
            context.metrics.log(step.index, metrics)
            context.progress.step(step.index + 1, steps, metrics)
            checkpoints.boundary(step.index + 1)
    tuned = policy.around(part.merged())
    measured = measure_pairs(tuned, held_out, config.dpo, cores=cores)
    save_policy(
        context,
        tuned.model,
        tokenizer,
        "A language model trained on preferences by direct preference optimisation.",
        {
            "DPO": f"{steps} steps on {len(training)} pairs from {config.model}, loss "
            f"{config.dpo.loss}, beta {config.dpo.beta:g}",
            **part.card,
        },
    )
    part.save(context.folder / "adapter", config.model)
    return {
        "pairs": float(len(training)),
        **{short: measured[name] for name, short in _HELD_OUT.items() if name in measured},
    }


def _split(
    preferences: Sequence[Preference], share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """The pairs to train on, and those of the prompts that are held out."""
    kept = held_out_prompts(preferences, share, seed)
    training = [row for row in preferences if row.comparison.prompt.id not in kept]
    if not training:
        raise DataError(
            f"none of {len(preferences)} preferences is left to train on after {len(kept)} "
            "prompts were held out: give more, or lower held_out"
        )
    return training, [row for row in preferences if row.comparison.prompt.id in kept]


def _prepare(
    config: DPOStage,
    context: StageContext,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    preferences: Sequence[Preference],
    cores: Cores | None,
) -> list[AnswerPair]:
    """Preferences as tokens, with what the reference thinks of them."""
    encoded = encode_preferences(tokenizer, preferences, config.max_length)
    for number, fault in (
        (encoded.num_too_long, f"exceed {config.max_length} tokens"),
        (encoded.num_equal, "have the same tokens twice"),
    ):
        if number:
            context.progress.message(
                f"{number} of {len(preferences)} pairs {fault} and are left out"
            )
    if preferences and not encoded.pairs:
        raise DataError(
            f"of {len(preferences)} pairs {encoded.num_too_long} exceed {config.max_length} tokens "
            f"and {encoded.num_equal} have the same tokens twice, none is left: raise max_length "
            "or give other pairs"
        )
    if config.dpo.reference == "none":
        return encoded.pairs
    return precompute_reference(policy, encoded.pairs, cores=cores)


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    kept = {name: value for name, value in metrics.items() if name.startswith("dpo/")}
    return {
        "dpo/loss": metrics["loss"],
        **kept,
        "train/skipped": metrics["train/skipped"],
    }
