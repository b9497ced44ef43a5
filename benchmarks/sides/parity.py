"""The gates: a speed counts only if the numbers it produces are right.

Everything here is computed a second time in the plainest way: one unpadded row after the
other through the transformers model, formulas written out, nothing shared with what is timed.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.core.row import Check
from benchmarks.sides import shapes
from benchmarks.sides.ours import DTYPES
from tutelage.experience import Experience
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Critic, Policy, SharedCritic
from tutelage.records import Completion, EncodedPrompt, Message, Prompt
from tutelage.trainers.optimizer import Optimizer

__all__ = [
    "chi_square",
    "chi_square_tail",
    "logprob_gate",
    "plain_update",
    "relative_error",
    "sampling_gate",
    "step_gate",
    "update_gate",
]

LOGPROB_LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}
"""float32: largest difference; bfloat16: mean difference. In nats."""
GRADIENT_LIMITS = {"float32": 1e-5, "bfloat16": 2e-2}
"""Or, in bfloat16, nearly as far as the plain formulas are away in that format, where that is
more."""
ROUNDING_MARGIN = 1.25
"""On the same rows, one of transformers' own two kinds of attention is up to 1.22 times as far away
as the other, in the few weights of a value head: `python -m benchmarks.rounding`."""
LOSS_LIMIT = 1e-5
STEP_LIMIT = 1e-3
"""Some weights are rounded the other way; a norm's, near 1, are 2 % of a step of 3e-6 apart."""
CHANCE = 1e-4
"""A sampler that is right fails the chi-square gate this often."""


def logprob_gate(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    dtype: str,
    *,
    lengths_forced: bool,
) -> list[Check]:
    """Log-probabilities of a rollout against a plain forward pass in the same format."""
    model = _plain(policy.model).to(DTYPES[dtype]).eval()
    gaps = []
    for prompt, completion in zip(prompts, completions, strict=True):
        start, ids = len(prompt.tokens), torch.tensor(completion.tokens)
        row = torch.tensor([[*prompt.tokens, *completion.tokens]], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=row, use_cache=False).logits[0, start - 1 : -1].float().cpu()
        logits = logits / policy.temperature
        if lengths_forced:  # The end has the policy's own probability, see ForcedEngine.
            logits[:-1, [shapes.PAD, shapes.END]] = -torch.inf
        expected = torch.log_softmax(logits, -1).gather(1, ids[:, None]).squeeze(1)
        gaps.append((expected - torch.tensor(completion.logprobs)).abs())
    gap = torch.cat(gaps)
    kind, value = ("largest", gap.max()) if dtype == "float32" else ("mean", gap.mean())
    name = f"{kind} |log-probability - plain forward|, {len(gap)} tokens, nats"
    return [Check(name, float(value), LOGPROB_LIMITS[dtype])]


def sampling_gate(engine: LocalEngine, first_word: int, draws: int = 4096) -> list[Check]:
    """First tokens drawn by the engine against the probabilities of a plain forward pass."""
    policy = engine.policy
    tokens = tuple(range(first_word, first_word + 4))
    prompt = EncodedPrompt(Prompt("gate", (Message("user", ""),), mode="continuation"), tokens)
    settings = Sampling(
        frozenset(), max_tokens=1, temperature=policy.temperature, samples_per_prompt=draws
    )
    drawn = torch.tensor([c.tokens[0] for c in engine.generate([prompt], settings)])
    with torch.no_grad():
        row = torch.tensor([tokens], device=policy.model.device)
        logits = policy.model(input_ids=row, use_cache=False).logits[0, -1].float().cpu()
    probabilities = torch.softmax(logits / policy.temperature, -1)
    statistic, freedom = chi_square(drawn, probabilities, draws // 128)
    tail = chi_square_tail(statistic, freedom)
    name = f"sampling: -log10 of the chi-square tail, {draws} draws in {freedom + 1} bins"
    return [Check(name, -math.log10(max(tail, 1e-300)), -math.log10(CHANCE))]


def chi_square(drawn: Tensor, probabilities: Tensor, bins: int) -> tuple[float, int]:
    """Pearson's statistic over bins of tokens of about equal probability, and its freedom."""
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    number = (before * bins).long().clamp(0, bins - 1)
    bin_of = torch.empty_like(number)
    bin_of[order] = number
    expected = torch.zeros(bins).index_add_(0, bin_of, probabilities) * len(drawn)
    observed = torch.bincount(bin_of[drawn], minlength=bins)
    used = expected > 0
    statistic = ((observed - expected).square() / expected)[used].sum()
    return float(statistic), int(used.sum()) - 1


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(chi-square >= statistic): the regularised upper incomplete gamma function."""
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


Gradients = Callable[[Experience], tuple[float, Mapping[str, Tensor]]]
"""Loss and gradients by parameter name, of the rows as one minibatch."""


def update_gate(
    compute: Gradients,
    policy: Policy,
    critic: Critic,
    rows: Experience,
    settings: Any,
    dtype: str,
) -> list[Check]:
    """Loss and gradients of the timed update against unpacked rows in float32.

    Args:
        compute: the update under test.
        policy, critic: what it trains.
        rows: with old log-probabilities, values, advantages and returns that are off by enough
            to reach the clipped branches.
        settings: clips and coefficients, a `PPOConfig`.
        dtype: format of the update under test.
    """
    loss, gradients = compute(rows)
    expected_loss, expected = plain_update(policy, critic, rows, settings)
    rounded = expected
    if dtype != "float32":
        with torch.autocast(policy.model.device.type, DTYPES[dtype]):
            _, rounded = plain_update(policy, critic, rows, settings)
    limit = LOSS_LIMIT if dtype == "float32" else GRADIENT_LIMITS[dtype]
    checks = [Check("update: |loss - plain loss|", abs(loss - expected_loss), limit)]
    for part in ("policy", "critic"):
        name = f"update: |gradient - plain gradient| / |plain gradient|, {part}"
        found = relative_error(gradients, expected, part)
        # No system can be nearer to float32 than the rounding of its format.
        unavoidable = ROUNDING_MARGIN * relative_error(rounded, expected, part)
        checks.append(Check(name, found, max(GRADIENT_LIMITS[dtype], unavoidable)))
    return checks


def step_gate(
    fit: Callable[[Callable[[object], None]], object], optimizers: Iterable[Optimizer]
) -> list[Check]:
    """Weights after a step against AdamW in float64, from the same gradients; the step is taken.

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        w = (1 - rate decay) w - rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon)

    Equal gradients are not enough: a fast optimiser may read their memory in another order.

    Args:
        fit: takes one step, and calls what it is given when the gradients are there.
        optimizers: of all weights.
    """
    expected: list[tuple[Tensor, Tensor]] = []
    size = 0.0

    def look(_: object) -> None:
        nonlocal size
        for optimizer in optimizers:
            for weight in optimizer.weights:
                if weight.grad is not None:
                    after = _adamw(optimizer, weight)
                    size += float((after - weight.detach()).square().sum())
                    expected.append((weight, after.float()))

    fit(look)
    wrong = sum(float((w.detach() - after).double().square().sum()) for w, after in expected)
    name = "update: |weights - plain AdamW's| / |step|"
    return [Check(name, math.sqrt(wrong / size) if size else math.nan, STEP_LIMIT)]


def _adamw(optimizer: Optimizer, weight: Tensor) -> Tensor:
    """The weight after the next step, in float64."""
    groups = optimizer.algorithm.param_groups
    group = next(g for g in groups if any(each is weight for each in g["params"]))
    state = optimizer.algorithm.state.get(weight, {})
    first, second = group["betas"]
    gradient, steps = weight.grad.double(), int(state.get("step", 0)) + 1  # type: ignore[union-attr]
    mean = (1.0 - first) * gradient
    square = (1.0 - second) * gradient.square()
    if state:
        mean += first * state["exp_avg"].double()
        square += second * state["exp_avg_sq"].double()
    mean, square = mean / (1.0 - first**steps), square / (1.0 - second**steps)
    rate = optimizer.learning_rate
    kept = weight.detach().double() * (1.0 - rate * group["weight_decay"])
    return kept - rate * mean / (square.sqrt() + group["eps"])


def relative_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], part: str) -> float:
    """|found - expected| / |expected| over all gradients of a part, policy or critic."""
    names = [name for name in expected if name.startswith(part)]
    square = sum(float((found[n] - expected[n]).double().square().sum()) for n in names)
    size = sum(float(expected[n].double().square().sum()) for n in names)
    return math.sqrt(square / size)


def plain_update(
    policy: Policy, critic: Critic, rows: Experience, settings: Any, attention: str = "sdpa"
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients row after row, no padding, formulas of PPO written out.

    In float32, or what autocast around it makes of that; `attention` is a kind of transformers'.
    """
    model = _plain(policy.model, attention)
    trunk, head = model.base_model, copy.deepcopy(critic.head).float()
    if not isinstance(critic, SharedCritic):
        trunk = _plain(critic.backbone.model, attention)
    total = float(rows.response_mask.sum())
    summed = 0.0
    for i in range(len(rows)):
        mask = rows.response_mask[i]
        ids = rows.tokens[i][rows.attention_mask[i]][None]
        start = int(mask.nonzero()[0])
        length = int(mask.sum())
        window = slice(start - 1, start - 1 + length)
        logits = model(input_ids=ids, use_cache=False).logits[0, window] / policy.temperature
        chosen = ids[0, start : start + length]
        new = torch.log_softmax(logits, -1).gather(1, chosen[:, None]).squeeze(1)
        hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state[0, window]
        values = head(hidden).squeeze(-1)
        loss = _plain_loss(new, values, rows, i, mask, settings) / total
        loss.backward()
        summed += float(loss.detach())
    parts = {"policy": model, "critic.head": head}
    if trunk is not model.base_model:
        parts["critic.backbone.model"] = trunk
    gradients = {
        f"{part}.{name}": weight.grad
        for part, module in parts.items()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }
    return summed, gradients


def _plain(model: Any, attention: str = "sdpa") -> Any:
    """A new model of transformers with the same weights in float32, and nothing of ours in it.

    What is frozen stays frozen.
    """
    config = copy.deepcopy(model.config)
    config._attn_implementation = attention
    plain = type(model)(config).to(model.device)
    plain.load_state_dict(model.state_dict())
    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    for name, weight in plain.named_parameters():
        weight.requires_grad_(trained[name])
    return plain.float().train()


def _plain_loss(
    new: Tensor, values: Tensor, rows: Experience, i: int, mask: Tensor, settings: Any
) -> Tensor:
    def of(name: str) -> Tensor:
        return getattr(rows, name)[i][mask]

    ratio = (new - of("old_logprobs")).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    gain = torch.minimum(ratio * of("advantages"), clipped * of("advantages"))
    old, returns = of("values"), of("returns")
    near = torch.minimum(
        torch.maximum(values, old - settings.value_clip), old + settings.value_clip
    )
    error = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    return (-gain + settings.value_coefficient * 0.5 * error).sum()
