"""Memory that runs out while completions are drawn: every prompt is answered, once, and fairly."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import GenerationError
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.records import Completion

PROMPTS = ([5, 6, 7], [8], [9, 10, 11, 12], [17, 18], [3], [4, 5])
SAMPLING = Sampling(frozenset({2, 30, 31, 32, 33}), 12)


class Room:
    """A device that holds so many rows; with `after`, only from that forward pass on."""

    def __init__(self, rows: int, after: int = 0) -> None:
        self.rows, self.after, self.passes = rows, after, 0

    def __call__(self, module: nn.Module, inputs: tuple, keywords: dict[str, Tensor]) -> None:
        self.passes += 1
        tokens = keywords["input_ids"] if "input_ids" in keywords else inputs[0]
        if self.passes > self.after and len(tokens) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def sample(tiny_causal_lm, tiny_tokenizer, encoded) -> Callable[..., list[Completion]]:
    """Draws completions with a model whose own forward pass is used, on a device of some size."""

    def draw(
        room: Room | None = None,
        sampling: Sampling = SAMPLING,
        prompts: Sequence[Sequence[int]] = PROMPTS,
        **options,
    ) -> list[Completion]:
        policy = Policy(tiny_causal_lm("gpt2"))
        engine = LocalEngine(policy, tiny_tokenizer, torch.Generator().manual_seed(0), **options)
        if room is not None:
            policy.model.register_forward_pre_hook(room, with_kwargs=True)
        return engine.generate(encoded(*prompts), sampling)

    return draw


@pytest.mark.parametrize("after", [0, 4])
def test_batch_is_halved_and_drawn_anew_with_the_same_random_numbers(sample, after):
    """As if the batches had been of three rows from the beginning."""
    heard: list[str] = []
    room = Room(3, after)
    found = sample(room, notify=heard.append)
    assert found == sample(batch_size=3)
    assert [c.prompt_id for c in found] == [f"p{i}" for i in range(6)]
    assert len({len(c.tokens) for c in found}) > 1
    assert len(heard) == 1
    assert "memory ran out at 6 completions side by side" in heard[0]


def test_smaller_batch_is_remembered(tiny_causal_lm, tiny_tokenizer, encoded):
    heard: list[str] = []
    policy = Policy(tiny_causal_lm("gpt2"))
    engine = LocalEngine(policy, tiny_tokenizer, torch.Generator(), notify=heard.append)
    policy.model.register_forward_pre_hook(Room(2), with_kwargs=True)
    for _ in range(2):
        assert len(engine.generate(encoded(*PROMPTS), SAMPLING)) == 6
    assert [message.split(": ")[1][0] for message in heard] == ["3", "1"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_samples_of_one_prompt_are_parted_when_they_do_not_fit_together(sample, rows):
    sampling = Sampling(SAMPLING.stop_tokens, 6, samples_per_prompt=5)
    found = sample(Room(rows), sampling)
    assert [c.prompt_id for c in found] == [f"p{i}" for i in range(6) for _ in range(5)]
    assert all(len(c.tokens) == 6 or not c.truncated for c in found)
    assert all(len(c.logprobs) == len(c.tokens) for c in found)
    # Rows drawn from the same random numbers would be equal.
    assert len({c.tokens for c in found}) > 15


def test_greedy_completions_are_those_of_a_device_with_room(sample):
    greedy = Sampling(SAMPLING.stop_tokens, 8, 0.0)
    assert [c.tokens for c in sample(Room(2, 3), greedy)] == [
        c.tokens for c in sample(None, greedy)
    ]


def test_single_completion_that_does_not_fit_names_its_length(sample):
    message = "single completion of up to 12 tokens of a prompt of 1: lower sampling.max_tokens"
    with pytest.raises(GenerationError, match=message):
        sample(Room(0))
