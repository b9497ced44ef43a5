"""Every number of a round, against numpy on ragged rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutelage.experience import Experience
from tutelage.records import (
    Completion,
    EncodedPrompt,
    Message,
    Prompt,
    Score,
    ScoreStatus,
    StopReason,
    Turn,
)
from tutelage.trainers.rollout import collate, diversity_metrics, reward_metrics, rollout_metrics

PROMPT, RESPONSE = (2, 1, 3, 2, 2), (4, 1, 6, 3, 2)
CUT = (False, False, True, False, True)
SCORES = [
    Score(1.0, {"model": 1.5, "length": -0.5}),
    Score(-2.0, {"model": -2.0, "length": 0.0}),
    Score(0.5, {"model": 0.5, "length": 0.0}),
    Score.failed(ScoreStatus.ERROR, "broken"),
    Score(4.0, {"model": 5.0, "length": -1.0}),
]
USED = [0, 1, 2, 4]


@pytest.fixture
def experience() -> Experience:
    """Five rows, the fourth of which could not be scored; garbage where nothing counts."""
    random = np.random.default_rng(0)
    prompts, completions = [], []
    for i, (p, r) in enumerate(zip(PROMPT, RESPONSE, strict=True)):
        tokens = tuple(int(t) for t in random.integers(3, 6, r))
        prompts.append(EncodedPrompt(Prompt(str(i), (Message("user", "q"),)), tuple([7] * p)))
        stop = StopReason.LENGTH if CUT[i] else StopReason.STOP_TOKEN
        logprobs = tuple(-random.random(r) - 0.5)
        completions.append(Completion(str(i), tokens, logprobs, "x", stop))
    rows = collate(prompts, completions, SCORES, "keep")
    mask = rows.response_mask.numpy()

    def drawn(scale: float) -> torch.Tensor:
        return torch.tensor(np.where(mask, scale * random.normal(size=mask.shape), 0)).float()

    old = rows.sampler_logprobs + drawn(0.1)
    return replace(
        rows,
        old_logprobs=old,
        ref_logprobs=old + drawn(0.5),
        values=drawn(1.0),
        advantages=drawn(2.0),
        returns=drawn(1.5),
    )


def kl_of(experience: Experience) -> torch.Tensor:
    return experience.old_logprobs - experience.ref_logprobs


def rows_of(experience: Experience, tensor: torch.Tensor) -> list[np.ndarray]:
    """What a tensor says of the response tokens of each row that counts."""
    return [tensor[i, PROMPT[i] : PROMPT[i] + RESPONSE[i]].double().numpy() for i in USED]


def test_round_is_measured_as_numpy_would(experience):
    found = rollout_metrics(experience, kl_of(experience))
    kl = rows_of(experience, kl_of(experience))
    flat = np.concatenate(kl)
    values, returns, advantages, old, sampler = (
        np.concatenate(rows_of(experience, tensor))
        for tensor in (
            experience.values,
            experience.returns,
            experience.advantages,
            experience.old_logprobs,
            experience.sampler_logprobs,
        )
    )
    weights = np.exp(old - sampler)
    expected = {
        "kl/sequence": np.mean([row.sum() for row in kl]),
        "kl/token": flat.mean(),
        "kl/k3": (np.exp(-flat) - 1 + flat).mean(),
        "response/length": np.mean([4, 1, 6, 2]),
        "response/truncated": 2 / 4,
        # Of all five rows: the one that could not be scored ended by itself.
        "response/stop_rate": 3 / 5,
        "value/explained_variance": 1 - np.var(returns - values) / np.var(returns),
        "advantage/mean": advantages.mean(),
        "advantage/std": advantages.std(),
        "sampler/gap_mean": np.abs(old - sampler).mean(),
        "sampler/gap_max": np.abs(old - sampler).max(),
        "sampler/ess": weights.sum() ** 2 / (len(weights) * (weights**2).sum()),
        "sampler/truncated_fraction": (weights > 2).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_rewards_are_measured_over_the_scores_that_exist(experience):
    kl = kl_of(experience)
    found = reward_metrics(SCORES, experience, kl, 0.2)
    scores = np.array([1.0, -2.0, 0.5, 4.0])
    sums = np.array([row.sum() for row in rows_of(experience, kl)])
    assert found == pytest.approx(
        {
            "reward/score": scores.mean(),
            "reward/std": scores.std(),
            "reward/failed": 0.2,
            "reward/total": (scores - 0.2 * sums).mean(),
            "reward/model": (1.5 - 2.0 + 0.5 + 5.0) / 4,
            "reward/length": -1.5 / 4,
        },
        rel=1e-5,
    )


def test_more_padding_changes_no_metric(experience):
    def padded(tensor):
        if tensor is None or tensor.ndim == 1:
            return tensor
        return F.pad(tensor, (0, 50), value=tensor.dtype is torch.float32 and torch.nan)

    fields = {name: padded(getattr(experience, name)) for name in experience.__dataclass_fields__}
    fields |= {
        name: F.pad(getattr(experience, name), (0, 50))
        for name in ("attention_mask", "response_mask")
    }
    wide = replace(experience, **fields)
    assert wide.tokens.shape[1] == experience.tokens.shape[1] + 50
    narrow = rollout_metrics(experience, kl_of(experience))
    narrow |= reward_metrics(SCORES, experience, kl_of(experience), 0.2)
    found = rollout_metrics(wide, kl_of(wide))
    found |= reward_metrics(SCORES, wide, kl_of(wide), 0.2)
    assert found == pytest.approx(narrow, rel=1e-6, abs=1e-7)


def test_truncated_rows_are_masked_out_only_when_dropped(experience):
    prompts = [EncodedPrompt(Prompt("p", (Message("user", "q"),)), (7,))] * 2
    completions = [
        Completion("p", (3, 2), (-1.0, -1.0), "x", StopReason.STOP_TOKEN),
        Completion("p", (3, 4), (-1.0, -1.0), "x", StopReason.LENGTH),
    ]
    for mode in ("keep", "replace", "penalise", "bootstrap"):
        rows = collate(prompts, completions, [Score(1.0)] * 2, mode)
        assert rows.response_lengths.tolist() == [2, 2]
    dropped = collate(prompts, completions, [Score(1.0)] * 2, "drop")
    assert dropped.response_lengths.tolist() == [2, 0]


def test_stop_rate_sees_the_truncated_rows_that_are_dropped(experience):
    """All rows are masked out, and still none of them ended by itself."""
    count = len(experience)
    cut_off = replace(
        experience,
        truncated=torch.ones(count, dtype=torch.bool),
        response_mask=torch.zeros_like(experience.response_mask),
    )
    assert rollout_metrics(cut_off, kl_of(cut_off))["response/stop_rate"] == 0
    assert rollout_metrics(experience, kl_of(experience))["response/stop_rate"] == pytest.approx(
        1 - experience.truncated.sum().item() / count
    )


def completions_of(*rows: tuple[int, ...]) -> list[Completion]:
    return [Completion("p", row, (-1.0,) * len(row), "", StopReason.LENGTH) for row in rows]


def test_diversity_of_a_round_by_hand():
    """Pairs 12 23, 12, 45, 45; of the first prompt {12, 23} and {12}, of the second the same."""
    found = diversity_metrics(completions_of((1, 2, 3), (1, 2), (4, 5), (4, 5)), 2)
    assert found == pytest.approx(
        {
            "diversity/distinct_1": 5 / 9,
            "diversity/distinct_2": 3 / 5,
            "diversity/unique": 3 / 4,
            "diversity/self_overlap": ((1 / 2 + 1) / 2 + 1) / 2,
        }
    )


def test_single_completions_have_no_overlap_with_themselves():
    found = diversity_metrics(completions_of((1, 2), (1, 2)), 1)
    assert "diversity/self_overlap" not in found
    assert found["diversity/unique"] == 0.5


def test_the_end_of_a_turn_and_the_beginning_of_the_next_are_no_bigram():
    (plain,) = completions_of((7, 7, 9, 7))
    turns = (Turn(0, 2, "", plain.stop), Turn(3, 4, "", plain.stop))
    found = diversity_metrics([replace(plain, turns=turns)], 1)
    # 7 7 | 7 has one pair; 9 was only read.
    assert found["diversity/distinct_2"] == 1
    assert found["diversity/distinct_1"] == 1 / 3


def test_round_without_anything_to_learn_has_finite_metrics(experience):
    empty = replace(experience, response_mask=torch.zeros_like(experience.response_mask))
    failed = [Score.failed(ScoreStatus.ERROR, "x")] * 5
    found = rollout_metrics(empty, kl_of(empty)) | reward_metrics(failed, empty, kl_of(empty), 0.1)
    assert all(np.isfinite(value) for value in found.values())
    assert found["reward/failed"] == 1
