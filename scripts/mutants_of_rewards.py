"""Mistakes in rewards, in what they are checked with, and in the guard that watches them.

The same kind of list as `mutant_catalogue`.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_REWARDS = "src/tutelage/rewards/"
_GUARD = "src/tutelage/safety/guard/"
_EVALUATION = "src/tutelage/evaluation/"
_ENSEMBLE = ("tests/unit/rewards/test_ensemble.py",)
_REFERENCES = ("tests/unit/rewards/test_references.py",)
_SUM = ("tests/unit/rewards/test_reward.py",)
_RETRIES = ("tests/unit/judging/test_retries.py",)
_NUMBER = ("tests/unit/rewards/verifiers/test_number.py",)
_CHOICE = ("tests/unit/rewards/verifiers/test_choice.py",)
_CALIBRATION = ("tests/unit/evaluation/test_reward_report.py",)
_GATE = ("tests/unit/evaluation/test_reward_gate.py",)
_MONITORS = ("tests/unit/safety/guard/test_monitors.py",)
_JUDGES = ("tests/unit/judging/test_judge.py",)
_PAIRED = ("tests/unit/safety/guard/test_paired.py",)
_OUTLIERS = ("tests/unit/safety/guard/test_outliers.py",)
_SIGNALS = ("tests/unit/safety/guard/test_signals.py",)
_WITHIN = ("tests/unit/safety/guard/test_within_length.py",)
_DECISIONS = ("tests/unit/safety/guard/test_guard.py",)

MUTANTS = (
    Mutant(
        "worst-case-is-the-best-case",
        _REWARDS + "ensemble.py",
        "scores.min(0)",
        "scores.max(0)",
        "The policy is paid by whichever model it has fooled.",
        _ENSEMBLE,
    ),
    Mutant(
        "disagreement-is-paid",
        _REWARDS + "ensemble.py",
        "mean - penalty * scores.var(0)",
        "mean + penalty * scores.var(0)",
        "Answers on which the models disagree are sought.",
        _ENSEMBLE,
    ),
    Mutant(
        "deviation-for-variance",
        _REWARDS + "ensemble.py",
        "penalty * scores.var(0)",
        "penalty * scores.std(0)",
        "The penalty is another one than the paper's and the documentation's.",
        _ENSEMBLE,
    ),
    Mutant(
        "failed-member-left-out",
        _REWARDS + "ensemble.py",
        '            if not score.ok:\n                return Score.failed(score.status, f"member',
        '            if False:\n                return Score.failed(score.status, f"member',
        "What one model cannot read becomes a number that is none.",
        _ENSEMBLE,
    ),
    Mutant(
        "par-reversed",
        _REWARDS + "references.py",
        "_sigmoid(score.value - reference)",
        "_sigmoid(reference - score.value)",
        "The policy is paid for answers worse than the reference's.",
        _REFERENCES,
    ),
    Mutant(
        "par-without-reference-is-half",
        _REWARDS + "references.py",
        "return Score.failed(ScoreStatus.UNSCORABLE, reason)",
        "return Score(0.5)",
        "A prompt without references rewards every answer alike.",
        _REFERENCES,
    ),
    Mutant(
        "length-quantile-one-too-far",
        _REWARDS + "references.py",
        "math.ceil(self.quantile * len(lengths)) - 1)",
        "min(len(lengths) - 1, math.ceil(self.quantile * len(lengths))))",
        "More tokens are free than the quantile says.",
        _REFERENCES,
    ),
    Mutant(
        "failed-part-counts-zero",
        _REWARDS + "reward.py",
        '            return Score.failed(score.status, f"{name}: {score.notes}")',
        "            continue",
        "A sample whose scorer failed is learned from as if it were worth nothing.",
        _SUM,
    ),
    Mutant(
        "weight-left-out-of-the-sum",
        _REWARDS + "reward.py",
        "parts = {name: weight * score.value for",
        "parts = {name: score.value for",
        "Weights in a recipe do nothing.",
        _SUM,
    ),
    Mutant(
        "all-failed-is-allowed",
        _REWARDS + "reward.py",
        " and len(failed) < len(scores)",
        "",
        "A run whose scorer is down goes on.",
        _SUM,
    ),
    Mutant(
        "breaker-never-closes",
        "src/tutelage/judging/retries.py",
        "            self._failures, self._open = 0, False",
        "            self._failures = 0",
        "A service that has come back is still asked once in a while only.",
        _RETRIES,
    ),
    Mutant(
        "backoff-without-an-end",
        "src/tutelage/judging/retries.py",
        "min(longest, first * 2.0**k)",
        "first * 2.0**k",
        "The tenth retry waits for an hour.",
        _RETRIES,
    ),
    Mutant(
        "several-marked-numbers-count",
        _REWARDS + "verifiers/number.py",
        "return different.pop() if len(different) == 1 else None",
        "return different.pop() if different else None",
        "An answer that names every number may be right.",
        _NUMBER,
    ),
    Mutant(
        "first-number-counts",
        _REWARDS + "verifiers/number.py",
        "return found[-1] if found else None",
        "return found[0] if found else None",
        "The first number of a solution is taken for its result.",
        _NUMBER,
    ),
    Mutant(
        "sign-lost",
        _REWARDS + "verifiers/number.py",
        "None if value is None or sign is None else sign * value",
        "None if value is None or sign is None else value",
        "-5 is 5.",
        _NUMBER,
    ),
    Mutant(
        "several-choices-count",
        _REWARDS + "verifiers/choice.py",
        "return bracketed.pop() if len(bracketed) == 1 else None",
        "return bracketed.pop() if bracketed else None",
        "An answer that offers every letter may be right.",
        _CHOICE,
    ),
    Mutant(
        "judge-asked-in-one-order",
        "src/tutelage/judging/judge.py",
        "None if first is None or second is None else (first + second) / 2",
        "None if first is None or second is None else first",
        "A judge's taste for the first answer becomes a label.",
        _JUDGES,
    ),
    Mutant(
        "temperature-upside-down",
        _EVALUATION + "calibration.py",
        "low, high = (middle, high) if slope < 0 else (low, middle)",
        "low, high = (low, middle) if slope < 0 else (middle, high)",
        "An overconfident model is made more so.",
        _CALIBRATION,
    ),
    Mutant(
        "temperature-judged-where-it-was-fitted",
        _EVALUATION + "calibration.py",
        "fit_temperature(margins[half != side], labels[half != side])",
        "fit_temperature(margins, labels)",
        "The calibration shown is better than that of pairs not seen.",
        _CALIBRATION,
    ),
    Mutant(
        "gate-open-where-nothing-was-measured",
        _EVALUATION + "reward_gate.py",
        '        return f"{what} was not measured, at least {least:.1%} is asked for"',
        '        return ""',
        "A reward model without measurements passes.",
        _GATE,
    ),
    Mutant(
        "gate-takes-the-best-group",
        _EVALUATION + "reward_gate.py",
        'min(rows, key=lambda row: row[1]["mean"])',
        'max(rows, key=lambda row: row[1]["mean"])',
        "A group on which the model is wrong does not count.",
        _GATE,
    ),
    Mutant(
        "either-of-two-is-a-divergence",
        _GUARD + "monitors.py",
        "return max(mean_above(rise), mean_above(fall, limit))",
        "return min(mean_above(rise), mean_above(fall, limit))",
        "Every training in which the reward rises rings.",
        _MONITORS,
    ),
    Mutant(
        "divergence-of-a-rising-signal",
        _GUARD + "monitors.py",
        "fall = then.columns[signal] - now.columns[signal]",
        "fall = now.columns[signal] - then.columns[signal]",
        "It rings when answers get better, and not when they get worse.",
        _MONITORS,
    ),
    Mutant(
        "every-look-has-the-whole-level",
        _GUARD + "monitors.py",
        "share = alpha / max(1, kinds) / max(1, looks)",
        "share = alpha / max(1, kinds)",
        "Long runs ring by chance.",
        _MONITORS,
    ),
    Mutant(
        "every-pair-has-the-whole-level",
        _GUARD + "monitors.py",
        "earlier=len(history) - 1,",
        "earlier=1,",
        "The best of many probes is compared with as if it had not been chosen.",
        _MONITORS,
    ),
    Mutant(
        "divergence-has-a-level-of-its-own",
        _GUARD + "monitors.py",
        "signal, in_order, level)",
        "signal, in_order[-1:], level)",
        "Two tests are asked at the level of one.",
        _MONITORS,
    ),
    Mutant(
        "population-deviation-in-a-t-test",
        _GUARD + "paired.py",
        "float(x.std(ddof=1))",
        "float(x.std(ddof=0))",
        "Evidence of few prompts is taken for more than it is.",
        _PAIRED,
    ),
    Mutant(
        "two-sided-tail",
        _GUARD + "paired.py",
        "half = 0.5 * _incomplete_beta",
        "half = 1.0 * _incomplete_beta",
        "P-values are twice what they are.",
        _PAIRED,
    ),
    Mutant(
        "charge-for-length-taken-off",
        _GUARD + "signals.py",
        "reward, max(0.0, slope)\n",
        "reward, slope\n",
        "A held-out model that dislikes long answers says nothing against them.",
        _SIGNALS,
    ),
    Mutant(
        "own-half-of-the-cloud",
        _GUARD + "outliers.py",
        "other = 1 - torch.arange(len(states)) % 2",
        "other = torch.arange(len(states)) % 2",
        "Answers before training look nearer than any later one.",
        _OUTLIERS,
    ),
    Mutant(
        "gain-of-all-lengths",
        _GUARD + "within_length.py",
        "float(np.average(means[1] - means[0], weights=weights))",
        "whole",
        "A gain by length alone counts as one within lengths.",
        _WITHIN,
    ),
    Mutant(
        "undone-probes-are-the-best",
        _GUARD + "guard.py",
        "kept = {each.step: each for each in self.history if not each.undone}",
        "kept = {each.step: each for each in self.history[:1]}",
        "What a roll-back goes back to is not the best.",
        _DECISIONS,
    ),
    Mutant(
        "rolls-back-for-ever",
        _GUARD + "guard.py",
        "spent = self.roll_backs >= self.config.max_roll_backs or self.best_step is None",
        "spent = self.best_step is None",
        "A training that cannot be mended never ends.",
        _DECISIONS,
    ),
)
