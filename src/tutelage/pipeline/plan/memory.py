"""Bytes of weights, optimiser states, activations, logits and keys and values.

What a forward pass keeps for the backward pass was read off autograd for the Llama family (tests
count again what it saves). Of each token, in each block, in numbers of one format:

    residual stream, normed, scaled      3 hidden, before attention and before the feed-forward part
    queries, output                      2 (heads x size)
    keys, values                         2 (key heads x size)
    gate, up, act(gate) up               3 mlp, and act(gate) where it is no SwiGLU
"""

from dataclasses import dataclass

from tutelage.config.sharing import READ_AT_ONCE
from tutelage.config.training import READ_TOKENS
from tutelage.pipeline.plan.sizes import ModelSize

__all__ = [
    "FLOAT",
    "OPTIMIZER_STATE",
    "Pass",
    "adapter_weights",
    "allocator_overhead",
    "decoder_copy",
    "format_bytes",
    "kept_activations",
    "key_value_cache",
    "passing_activations",
    "reading_logits",
    "rollout",
    "rows_read",
    "update_peak",
]

FLOAT = 4
"""Bytes of a float32: the format of all trainable weights and their gradients."""
OPTIMIZER_STATE = {"adamw": 8, "adamw8bit": 2, "adafactor": 0}
"""Bytes for each weight; see `tutelage.trainers.optimizer`."""

_HEAP_BLOCK = 32 << 20
"""Blocks from this size on glibc returns to the system at once (DEFAULT_MMAP_THRESHOLD_MAX)."""
_HELD = 0.55
"""Share of smaller blocks that come and go, activations and gradients, by which its heap grows
beyond what is in use: measured, 0.4 to 0.7 over twelve shapes and batches."""
_CACHE_BLOCK = 32
"""Columns by which a cache of keys and values grows."""


@dataclass(frozen=True)
class Pass:
    """A forward pass: whose, over how many tokens, how."""

    size: ModelSize
    tokens: int
    """Padding included."""
    compute: str = "float32"
    """Format of the matrix products."""
    blocks: int | None = None
    """Blocks that are run with gradients; unset all."""
    checkpointing: bool = False
    """Only the input of each block is kept, the rest computed again."""
    adapted: bool = False
    """Adapters are trained: the frozen matrices have the format of the products already."""


def format_bytes(compute: str) -> int:
    """Bytes of a number in the format of the matrix products."""
    return 2 if compute == "bfloat16" else FLOAT


def rows_read(length: int) -> int:
    """Rows of `length` tokens that go through a model at once where nothing is trained."""
    return max(1, READ_TOKENS // max(1, length))


def kept_activations(run: Pass) -> int:
    """Bytes that autograd keeps of a forward pass below the head."""
    size, number = run.size, format_bytes(run.compute)
    blocks = size.layers if run.blocks is None else run.blocks
    one_block = run.tokens * _block_bytes(size, run.compute)
    final_norm = (1 if size.root_mean_square else 2) * size.hidden * FLOAT * run.tokens
    # Autocast's copies of the weights live as long as the activations.
    copies = number * size.linear * blocks // max(1, size.layers)
    if number == FLOAT or run.adapted:
        copies = 0
    if run.checkpointing:
        inputs = run.tokens * size.hidden * FLOAT * blocks
        return inputs + one_block * min(1, blocks) + final_norm + copies // max(1, blocks)
    return one_block * blocks + final_norm + copies


def _block_bytes(size: ModelSize, compute: str) -> int:
    """Of one token in one block."""
    heads = 2 * size.queries + 2 * size.keys
    gated = (3 if size.swiglu else 4) * size.mlp
    # What a norm reads is kept, and what it makes of that before its weight, if it is not ours.
    norms = 2 * (1 if size.root_mean_square else 2)
    narrow = format_bytes(compute) < FLOAT
    if size.normed_heads:
        # What a norm reads it keeps in float32.
        heads += (3 if narrow else norms // 2) * (size.queries + size.keys)
    if not narrow:
        return FLOAT * ((2 + norms) * size.hidden + heads + gated)
    # The stream and what is normed stay float32; what is read by several products is cast once.
    return norms * FLOAT * size.hidden + 2 * (2 * size.hidden + heads + gated)


def passing_activations(size: ModelSize, tokens: int) -> int:
    """Bytes of a pass without gradients: of the block that is being computed alone."""
    attention = 2 * size.hidden + 3 * size.queries + 3 * size.keys
    feed_forward = 2 * size.hidden + 3 * size.mlp
    return FLOAT * tokens * (size.hidden + max(attention, feed_forward))


def reading_logits(size: ModelSize, tokens: int, head_tokens: int, copies: float) -> int:
    """Bytes of logits, softmax and what is read from them, of a chunk of tokens at a time.

    Args:
        size: gives the vocabulary.
        tokens: response tokens of the micro-batch.
        head_tokens: most tokens in a chunk.
        copies: tensors of the logits' size that exist at the same time.
    """
    return round(copies * FLOAT * size.vocabulary * min(tokens, head_tokens))


def key_value_cache(size: ModelSize, rows: int, columns: int, compute: str) -> int:
    """Bytes of keys and values of `rows` sequences of `columns` tokens."""
    return 2 * size.layers * size.keys * format_bytes(compute) * rows * columns


def decoder_copy(size: ModelSize, compute: str) -> int:
    """Bytes of the matrices that the decoder packs, head included; they are no one's weights."""
    return format_bytes(compute) * (size.linear + size.head) if size.fast else 0


def rollout(
    size: ModelSize, prompts: int, rows: int, prompt: int, answer: int, compute: str, kind: str
) -> tuple[int, int]:
    """Bytes of the cache at its largest, and of what is computed beside it.

    Args:
        size: of the policy.
        prompts: read for the completions in `rows`.
        rows: completions decoded side by side.
        prompt: tokens of the longest prompt.
        answer: tokens of the longest completion.
        compute: format of the cache.
        kind: of the device, cpu or cuda.
    """
    columns = -(-(prompt + answer) // _CACHE_BLOCK) * _CACHE_BLOCK
    # Growing copies the keys of all layers while the values wait, then the values.
    cache = key_value_cache(size, rows, columns, compute) * 3 // 2
    passes = max(1, prompts * prompt // READ_AT_ONCE[kind]) if size.fast else 1
    together = -(-prompts // passes)
    mask = together * prompt * prompt * 6
    prefill = passing_activations(size, together * prompt) + mask
    # Logits of this token and of the next, weights, and their running sum.
    drawing = 4 * FLOAT * rows * size.vocabulary
    return cache, max(prefill, drawing)


def adapter_weights(size: ModelSize, rank: int, targets: tuple[str, ...] | str) -> int:
    """Weights of low-rank adapters: rank x (inputs + outputs) of each layer they are put on."""
    h, q, k, m = size.hidden, size.queries, size.keys, size.mlp
    widths = {
        "q_proj": h + q,
        "k_proj": h + k,
        "v_proj": h + k,
        "o_proj": q + h,
        "gate_proj": h + m,
        "up_proj": h + m,
        "down_proj": m + h,
    }
    chosen = widths if targets == "all-linear" else targets
    # A layer of another name, in another architecture, is taken for a square one.
    return rank * size.layers * sum(widths.get(name.rpartition(".")[2], 2 * h) for name in chosen)


def allocator_overhead(in_motion: int, block: int, device: str) -> int:
    """Bytes that the allocator holds beyond those in use.

    Args:
        in_motion: bytes that are taken and given back at every step: activations, gradients.
        block: of a typical tensor among them.
        device: cpu or cuda; the CUDA allocator's rounding is not counted.
    """
    return round(_HELD * in_motion) if device == "cpu" and block < _HEAP_BLOCK else 0


def update_peak(
    gradients: int, activations: int, logits: int, microbatches: int, cores: int = 1
) -> int:
    """Highest bytes of gradients, activations and logits during an optimiser step.

    The last micro-batch meets the gradients of those before it. A single one does not: its
    activations go as its gradients come. Cores that work on a micro-batch each hold activations
    and then a gradient of their own, which are added to the sum one by one.

    Args:
        gradients: bytes of one gradient of all that is trained.
        activations: of a micro-batch.
        logits: of a micro-batch.
        microbatches: of a minibatch.
        cores: among which they are shared out.
    """
    if cores > 1:
        together = min(cores, microbatches)
        summed = gradients if microbatches > cores else 0
        return max(together * (activations + logits) + summed, (together + 1) * gradients)
    if microbatches > 1:
        return gradients + activations + logits
    return max(activations + logits, gradients)
