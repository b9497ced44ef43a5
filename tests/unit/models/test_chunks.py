"""Chunks: the same numbers and gradients, and no more at a time than asked for."""

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.algorithms import entropy, token_logprobs
from tutelage.models import Policy
from tutelage.models.chunks import in_chunks

TOKENS, WIDTH, VOCABULARY = 23, 8, 31


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """States, a head's weight, and the chosen tokens, in float64."""
    states = torch.randn(TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, requires_grad=True)
    return states, weight, torch.randint(VOCABULARY, (TOKENS,))


@pytest.mark.parametrize("size", [1, 5, 22, 23, 1000])
def test_numbers_and_gradients_do_not_depend_on_chunks(size):
    states, weight, chosen = inputs()

    def read(states, chosen):
        logits = states @ weight.T
        return token_logprobs(logits, chosen), entropy(logits)

    scale = torch.randn(2, TOKENS, dtype=torch.float64)
    outcomes = []
    for found in (read(states, chosen), in_chunks(read, size, (states, chosen))):
        loss = sum((each * s).sum() for each, s in zip(found, scale, strict=True))
        outcomes.append((*found, *torch.autograd.grad(loss, (states, weight))))
    for plain, cut in zip(*outcomes, strict=True):
        torch.testing.assert_close(cut, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "sizes"), [(23, [23]), (22, [12, 11]), (8, [8, 8, 7]), (6, [6, 6, 6, 5])]
)
@pytest.mark.parametrize("gradients", [False, True])
def test_chunks_are_of_like_size_with_and_without_gradients(size, sizes, gradients):
    states, weight, _ = inputs()
    seen = []

    def read(states):
        seen.append(len(states))
        return ((states @ weight.T).logsumexp(-1),)

    with torch.set_grad_enabled(gradients):
        (found,) = in_chunks(read, size, (states,))
    assert seen == sizes
    assert found.requires_grad == gradients


def test_no_tokens_give_no_numbers():
    states, weight, chosen = inputs()

    def read(states, chosen):
        return (token_logprobs(states @ weight.T, chosen),)

    (found,) = in_chunks(read, 4, (states[:0], chosen[:0]))
    assert found.shape == (0,)
    assert found.requires_grad


class LargestLogits(TorchDispatchMode):
    """Notes the most rows over the vocabulary that any operation gives."""

    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == VOCABULARY:
            self.rows = max(self.rows, len(result))
        return result


def rows_over_the_vocabulary(policy: Policy, batch) -> tuple[int, int]:
    """The most that any operation makes, and the most that is kept for the backward pass."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        if tensor.ndim == 2 and tensor.shape[1] == VOCABULARY:
            kept = max(kept, len(tensor))
        return tensor

    def give_back(tensor: Tensor) -> Tensor:
        return tensor

    with LargestLogits() as largest, saved_tensors_hooks(keep, give_back):
        policy.logprobs(batch).sum().backward()
    return largest.rows, kept


def test_logits_of_all_tokens_never_exist(tiny_causal_lm, lay_out):
    model = tiny_causal_lm("llama", VOCABULARY, hidden_size=8)
    batch = lay_out([([5, 6], list(range(3, 30))), ([7], list(range(2, 20)))])
    whole = rows_over_the_vocabulary(Policy(model), batch)
    assert whole == (45, 45)
    assert rows_over_the_vocabulary(Policy(model, head_tokens=10), batch) == (9, 0)


@pytest.mark.parametrize(
    ("head_tokens", "gradients", "passes"), [(6, True, 1), (5, True, 4), (5, False, 2)]
)
def test_head_is_read_again_only_where_that_saves_memory(
    tiny_causal_lm, lay_out, head_tokens, gradients, passes
):
    policy = Policy(tiny_causal_lm("llama"), head_tokens=head_tokens)
    batch = lay_out([([5, 6], [7, 8, 9, 10]), ([5], [7, 8])])
    calls = []
    policy.model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    with torch.set_grad_enabled(gradients):
        total = policy.logprobs(batch).sum()
    if gradients:
        total.backward()
    assert len(calls) == passes
