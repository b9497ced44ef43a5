"""Operations and bytes of training, scoring and decoding.

    training    6 N per token: 2 forward, 4 backward; 4 where only adapters are trained
    scoring     2 N per token
    decoding    per step, the weights are read once for all rows; 2 N per row; and what each row
                has in its cache is read

N counts the weights in matrix products, the head on response tokens alone (Kaplan et al. 2020,
arXiv:2001.08361, section 2.1); attention is added. Rates come from `devices`.
"""

from tutelage.pipeline.plan.memory import FLOAT, format_bytes, key_value_cache
from tutelage.pipeline.plan.parts import Work
from tutelage.pipeline.plan.sizes import ModelSize

__all__ = ["decoding_work", "forward_flops", "optimizer_work", "scoring_work", "training_work"]


def forward_flops(size: ModelSize, rows: float, length: float, answers: float) -> float:
    """Operations of a forward pass.

    Args:
        size: of the model.
        rows: sequences.
        length: tokens of each.
        answers: tokens of each row whose logits are needed.
    """
    products = 2.0 * rows * (size.linear * length + size.head * answers)
    # Query times key and weight times value, over half of the square that is causal.
    attention = 2.0 * size.layers * size.queries * rows * length * length
    return products + attention


def scoring_work(size: ModelSize, rows: float, length: float, answers: float, compute: str) -> Work:
    """A pass without gradients."""
    return Work(forward_flops(size, rows, length, answers), compute=compute)


def training_work(
    size: ModelSize,
    rows: float,
    length: float,
    answers: float,
    compute: str,
    trained: int,
    checkpointing: bool = False,
    share: float = 1.0,
) -> tuple[Work, ...]:
    """Forward and backward.

    Args:
        size, rows, length, answers: as `forward_flops`.
        compute: format of the products.
        trained: weights with gradients; few of them leave out the products that form these.
        checkpointing: one more forward pass.
        share: of the blocks, where the lower ones are frozen and their states known.
    """
    passes = (3.0 if trained > size.linear * share / 2 else 2.0) + float(checkpointing)
    return (Work(passes * share * forward_flops(size, rows, length, answers), compute=compute),)


def optimizer_work(weights: int) -> Work:
    """Reads weight, gradient and two moments, writes all but the gradient."""
    return Work(12.0 * weights, 7.0 * FLOAT * weights)


def decoding_work(
    size: ModelSize,
    prompts: float,
    rows: float,
    prompt: float,
    answer: float,
    batch: int,
    compute: str,
    longest: int | None = None,
    shares: float = 1.0,
) -> tuple[Work, ...]:
    """Prompts are read once, then a token of every answer that has not ended in each step.

    Args:
        size: of the policy.
        prompts: prompts in all.
        rows: completions in all.
        prompt: tokens of each prompt.
        answer: tokens of each completion.
        batch: completions decoded side by side.
        compute: format of weights, products and cache.
        longest: tokens of the longest completion of a batch; unset, all are alike.
        shares: parts that are decoded by themselves.
    """
    weights = size.linear + size.head
    steps = shares * -(-rows // (shares * batch)) * (answer if longest is None else longest)
    mean_context = prompt + answer / 2
    cache = key_value_cache(size, 1, 1, compute) * rows * answer * mean_context
    return (
        Work(forward_flops(size, prompts, prompt, 1), compute=compute),
        Work(
            2.0 * weights * rows * answer,
            1.0 * format_bytes(compute) * weights * steps,
            compute,
            # The head and the draw take about as long as a block.
            steps=steps * (size.layers + 1),
        ),
        Work(0.0, cache),
    )
