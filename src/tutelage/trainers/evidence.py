"""Sampled rows whose numbers are not finite: found at the boundary where they appear, and shown.

engine ──log-probabilities──> reward ──scores──> models ──log-probabilities, values──> updates
     └ sampler                     └ reward           └ rollout                      └ gradient
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import TrainingError
from tutelage.experience import Experience
from tutelage.generation import Engine, NotFiniteError, Sampling
from tutelage.records import Completion, EncodedPrompt, Score, ScoreStatus
from tutelage.trainers.finite import FiniteGuard

__all__ = ["SampledRows", "sample"]

_PER_TOKEN = ("sampler_logprobs", "old_logprobs", "ref_logprobs", "values", "advantages", "returns")


def sample(
    engine: Engine, prompts: Sequence[EncodedPrompt], sampling: Sampling, guard: FiniteGuard
) -> list[Completion]:
    """Draws completions; see `Engine.generate`.

    Raises:
        TrainingError: a log-probability is not finite. The weights have overflowed: no later
            round would do better.
    """
    try:
        completions = engine.generate(prompts, sampling)
    except NotFiniteError as error:
        completions = list(error.completions)
    broken = [each for each in completions if not math.isfinite(sum(each.logprobs))]
    if guard.all_true(not broken):
        return completions
    place = guard.record("sampler", {"rows": [_drawn(each) for each in broken]}, always=True)
    raise TrainingError(
        f"{len(broken)} of {len(completions)} completions have log-probabilities that are not "
        f"finite: {place}. The policy's weights or its logits have overflowed: lower the learning "
        "rate, and begin from an older checkpoint or a sound model"
    )


@dataclass(frozen=True)
class SampledRows:
    """What is known of each row of a round."""

    prompts: Sequence[EncodedPrompt]
    completions: Sequence[Completion]
    scores: Sequence[Score]

    def record_scores(self, guard: FiniteGuard) -> None:
        """Writes down the rows whose reward was not finite; they count nowhere."""
        odd = [i for i, s in enumerate(self.scores) if s.status is ScoreStatus.NOT_FINITE]
        if odd:
            guard.record("reward", {"rows": self.describe(odd)})

    def allow(self, experience: Experience, guard: FiniteGuard) -> bool:
        """Whether what the models think of the rows is finite, on all ranks.

        Raises:
            TrainingError: too many rounds were not.
        """
        odd = {name: rows for name in _PER_TOKEN[:4] if (rows := _not_finite(experience, name))}

        def evidence() -> Mapping[str, Any]:
            rows = sorted({row for found in odd.values() for row in found})
            return {"not_finite": odd, "rows": self.describe(rows, experience)}

        return guard.allows_round(not odd, evidence)

    def describe(
        self, rows: Sequence[int], experience: Experience | None = None
    ) -> list[dict[str, Any]]:
        """The given rows as JSON, with the numbers of each written token where there are any."""
        return [
            {
                "row": row,
                **_drawn(self.completions[row]),
                "prompt": list(self.prompts[row].tokens),
                "score": self.scores[row].value,
                "parts": dict(self.scores[row].parts),
                "status": self.scores[row].status.value,
                "notes": self.scores[row].notes,
                **(_numbers(experience, row) if experience is not None else {}),
            }
            for row in rows
        ]


def _drawn(completion: Completion) -> dict[str, Any]:
    row = completion.to_json()
    return {key: row[key] for key in ("prompt_id", "tokens", "logprobs", "text")}


def _not_finite(experience: Experience, name: str) -> list[int]:
    """Rows with such a number at a token that counts."""
    numbers: Tensor | None = getattr(experience, name)
    if numbers is None:
        return []
    odd = torch.where(experience.response_mask, ~numbers.isfinite(), False)
    rows: list[int] = odd.any(1).nonzero().squeeze(1).tolist()
    return rows


def _numbers(experience: Experience, row: int) -> dict[str, list[float]]:
    written = experience.response_mask[row]
    present = {name: getattr(experience, name) for name in _PER_TOKEN}
    return {name: x[row][written].tolist() for name, x in present.items() if x is not None}
