"""Numbers that are not finite: steps skipped on all ranks together, rows written down, the end."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.config import BatchConfig, OptimizerConfig
from tutelage.errors import RewardError, TrainingError
from tutelage.models import Critic, Policy
from tutelage.records import Score
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer

NAN = float("nan")


def evidence() -> dict[str, Any]:
    return {"rows": [{"prompt_id": "p1", "logprobs": [-0.5, NAN]}], "loss": -float("inf")}


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def strict(path) -> Any:
    return json.loads(path.read_text(), parse_constant=refuse)


def skips(guard: FiniteGuard, pattern: str) -> int | None:
    """Steps after which training ends; `x` is a step that is not finite."""
    for step, letter in enumerate(pattern, 1):
        try:
            assert guard.allows_step(letter != "x", evidence) == (letter != "x")
        except TrainingError:
            return step
    return None


@pytest.mark.parametrize(
    ("pattern", "end"),
    [
        ("xx", None),
        ("xxx", 3),
        ("xx.x", 4),
        (300 * "." + "xxx", 303),
        # Three of 303 are fewer than one in a hundred, four of 354 are more.
        (3 * (100 * "." + "x"), None),
        (3 * (100 * "." + "x") + 50 * "." + "x", 354),
        (3 * (100 * "." + "x") + 97 * "." + "x", None),
    ],
)
def test_three_in_a_row_or_more_than_one_in_a_hundred_end_training(pattern, end):
    assert skips(FiniteGuard(), pattern) == end


def test_rounds_count_among_steps(tmp_path):
    guard = FiniteGuard(tmp_path / "evidence")
    assert guard.allows_round(True, evidence)
    assert guard.steps == 0
    assert not guard.allows_round(False, evidence)
    assert not guard.allows_step(False, evidence)
    # A good rollout before a bad gradient does not begin the count anew.
    assert guard.allows_round(True, evidence)
    with pytest.raises(TrainingError, match=r"3 of 3 .*/00000003-gradient\.json"):
        guard.allows_step(False, evidence)


def test_evidence_is_json_with_words_for_what_json_lacks(tmp_path):
    heard: list[str] = []
    guard = FiniteGuard(tmp_path / "evidence", notify=heard.append)
    guard.allows_step(False, evidence)
    (path,) = (tmp_path / "evidence").iterdir()
    assert heard == [f"numbers of a gradient are not finite: the rows are in {path}"]
    rows = [{"prompt_id": "p1", "logprobs": [-0.5, "nan"]}]
    assert strict(path) == {"rows": rows, "loss": "-inf"}


def test_folder_that_cannot_be_written_does_not_hide_the_diagnosis(tmp_path):
    (tmp_path / "file").write_text("")
    guard = FiniteGuard(tmp_path / "file" / "evidence")
    guard.allows_step(False, evidence)
    guard.allows_step(False, evidence)
    with pytest.raises(TrainingError, match=r"3 of 3 .* the rows could not be written"):
        guard.allows_step(False, evidence)


def test_files_of_one_kind_are_few_but_the_last_one_is_there(tmp_path):
    guard = FiniteGuard(tmp_path)
    for _ in range(30):
        guard.steps += 1
        guard.record("reward", evidence())
    assert len(list(tmp_path.iterdir())) == 10
    assert "00000030" in guard.record("reward", evidence(), always=True)


def test_counters_are_part_of_the_state():
    guard, other = FiniteGuard(), FiniteGuard()
    skips(guard, "..xx")
    other.load_state_dict(guard.state_dict())
    assert skips(other, "x") == 1
    assert skips(FiniteGuard(), "x") is None


# Ranks.


@dataclass
class Rank:
    """A learner of one model in a thread of its own."""

    all_true: Callable[[bool], bool]
    learner: Learner = field(init=False)
    model: torch.nn.Linear = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(2, 1)
        config = OptimizerConfig(learning_rate=0.1, warmup=0.5)
        self.learner = Learner(
            {"model": Optimizer(self.model, config, 10)},
            BatchConfig(),
            torch.Generator(),
            FiniteGuard(all_true=self.all_true),
        )


def test_ranks_skip_the_same_step_when_one_gradient_of_one_rank_is_not_finite(bench):
    """Two threads stand for two processes; a barrier stands for the reduction over them."""
    from tutelage.algorithms import LossOutput
    from tutelage.experience import TokenBatch

    barrier, said = threading.Barrier(2, timeout=20), {}

    def all_true(condition: bool) -> bool:
        said[threading.get_ident()] = condition
        barrier.wait()
        answer = all(said.values())
        barrier.wait()
        return answer

    batch = TokenBatch.collate([([1, 2], [1.0, 1.0])] * 4, pad=0)
    ranks = [Rank(all_true), Rank(all_true)]
    weights: dict[int, list[Tensor]] = {0: [], 1: []}

    def live(number: int) -> None:
        rank = ranks[number]
        for step in range(4):
            spoilt = number == 1 and step in (1, 2)

            def loss(rows, denominator: float, spoilt=spoilt, rank=rank) -> LossOutput:
                x = torch.ones(2) * (NAN if spoilt else 1.0)
                return LossOutput(rank.model(x).sum(), {})

            rank.learner.step(loss, batch)
            weights[number].append(rank.model.weight.detach().clone())

    threads = [threading.Thread(target=live, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        moved = [not a.equal(b) for a, b in pairwise(weights[number])]
        assert moved == [False, False, True]
        assert ranks[number].learner.guard.state_dict() == {
            "steps": 4,
            "skipped": 2,
            "in_a_row": 0,
        }
        # The schedule stands still as well.
        assert ranks[number].learner.optimizers["model"].steps == 2
    assert weights[0][-1].equal(weights[1][-1])


# PPO.


@dataclass
class Spoilt:
    """A critic or policy one of whose numbers is NaN: at the first written token of some rows."""

    inner: Any
    rows: Sequence[int]
    everywhere: bool = False
    """NaN at all tokens that were not written, instead."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def spoil(self, numbers: Tensor, experience) -> Tensor:
        mask = experience.response_mask
        if self.everywhere:
            return torch.where(mask, numbers, NAN)
        first = mask & (mask.cumsum(1) == 1)
        # Rows are known by their prompt's first token: micro-batches renumber them.
        chosen = torch.isin(experience.tokens[:, 0], torch.tensor([8 + row for row in self.rows]))
        return torch.where(first & chosen[:, None], NAN, numbers)

    def values(self, experience, policy_states=None) -> Tensor:
        return self.spoil(self.inner.values(experience, policy_states), experience)

    def logprobs(self, experience, states=None) -> Tensor:
        return self.spoil(self.inner.logprobs(experience, states), experience)


def weights_of(world) -> list[Tensor]:
    models = (world.policy.model, world.critic)
    return [w.detach().clone() for model in models for w in model.parameters()]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("spoilt", ["critic", "reference"])
def test_round_with_one_number_that_is_not_finite_is_not_learned_from(
    bench, ragged_script, tmp_path, spoilt
):
    world = bench(script=ragged_script, epochs=2, kl={"coefficient": 0.1})
    before = weights_of(world)
    sound = getattr(world, spoilt)
    world.learner.guard.folder = tmp_path
    setattr(world, spoilt, Spoilt(sound, [1, 2]))
    (step,) = world.run()
    assert step.metrics["train/skipped"] == step.metrics["train/not_finite"] == 1
    setattr(world, spoilt, sound)
    assert same(before, weights_of(world))
    assert all(optimizer.steps == 0 for optimizer in world.learner.optimizers.values())
    assert world.learner.guard.skipped == 1
    (path,) = tmp_path.iterdir()
    found = strict(path)
    name = {"critic": "values", "reference": "ref_logprobs"}[spoilt]
    assert found["not_finite"] == {name: [1, 2]}
    assert [row["prompt_id"] for row in found["rows"]] == ["p1", "p2"]
    for row in found["rows"]:
        assert row[name][0] == "nan"
        assert row["tokens"] == ragged_script(world.prompts[int(row["prompt_id"][1:])], 0)
        assert len(row["old_logprobs"]) == len(row["tokens"])
    # Negative control: the same round is learned from when nothing is spoilt.
    (step,) = world.run()
    assert step.metrics["train/skipped"] == 0
    assert not same(before, weights_of(world))


def test_gradient_that_is_not_finite_names_rows_and_weights(bench, ragged_script, tmp_path):
    world = bench(script=ragged_script, batch={"minibatch": 2})
    before = weights_of(world)
    world.learner.guard.folder = tmp_path
    spoilt = iter([NAN, 1.0])
    world.critic.head.weight.register_hook(lambda gradient: gradient * next(spoilt))
    (step,) = world.run()
    # Two minibatches: the first is skipped by both models, the second is not.
    assert step.metrics["train/skipped"] == step.metrics["train/not_finite"] == 0.5
    assert not same(before, weights_of(world))
    assert [o.steps for o in world.learner.optimizers.values()] == [1, 1]
    (path,) = tmp_path.iterdir()
    found = strict(path)
    assert found["weights"] == {"policy": [], "value": ["head.weight"]}
    assert found["gradient_norms"]["value"] == "nan"
    planned = [row for rows in world.learner.plans[0][0][0] for row in rows]
    assert [row["row"] for row in found["rows"]] == planned
    assert all(row["advantages"] for row in found["rows"])


@pytest.mark.parametrize("value", [NAN, float("inf"), 1e39])
def test_score_that_is_not_finite_is_a_failed_score(bench, ragged_script, tmp_path, value):
    """The row counts nowhere: the gradients are those of the other rows."""

    def reward(prompts, completions):
        return [
            Score(value if prompt.id == "p3" else 1.0 + len(completion.tokens))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    spoilt = bench(script=ragged_script, reward=reward, still=True)
    spoilt.learner.guard.folder = tmp_path
    (step,) = spoilt.run()
    assert step.metrics["reward/failed"] == 0.25
    assert step.metrics["train/skipped"] == 0
    sound = bench(script=ragged_script, reward=reward, prompts_per_step=3, still=True)
    sound.run()
    for name in ("policy", "value"):
        torch.testing.assert_close(
            spoilt.gradients(name)[0], sound.gradients(name)[0], rtol=1e-4, atol=1e-6
        )
    (path,) = tmp_path.iterdir()
    (row,) = strict(path)["rows"]
    assert (row["prompt_id"], row["status"]) == ("p3", "not_finite")


def test_reward_that_is_never_finite_ends_the_run_by_name(bench, ragged_script):
    world = bench(script=ragged_script, reward=lambda p, c: [Score(NAN)] * len(c))
    with pytest.raises(RewardError, match=r"4 of 4 completions.*not_finite: the score is nan"):
        world.run()


def test_nan_behind_the_mask_changes_nothing(bench, ragged_script):
    sound = bench(script=ragged_script, epochs=2, still=True)
    spoilt = bench(script=ragged_script, epochs=2, still=True)
    spoilt.critic = Spoilt(spoilt.critic, [], everywhere=True)
    spoilt.reference = Spoilt(spoilt.reference, [], everywhere=True)
    (one,), (other,) = sound.run(), spoilt.run()
    assert other.experience.values.isnan().any()
    assert other.metrics == one.metrics
    for name in ("policy", "value"):
        for expected, found in zip(sound.gradients(name), spoilt.gradients(name), strict=True):
            assert found.equal(expected)


def test_policy_whose_logits_overflow_ends_the_run_with_its_completions(bench, tmp_path):
    world = bench()
    world.learner.guard.folder = tmp_path
    with torch.no_grad():
        next(world.policy.model.parameters()).fill_(NAN)
    with pytest.raises(TrainingError, match=r"4 of 4 completions.*00000000-sampler\.json"):
        world.run()
    (path,) = tmp_path.iterdir()
    assert [row["prompt_id"] for row in strict(path)["rows"]] == ["p0", "p1", "p2", "p3"]


def test_doubles_are_what_they_stand_for():
    assert {"values", "final_values"} <= set(dir(Critic))
    assert {"logprobs", "states"} <= set(dir(Policy))
