"""What a model of a given width reaches of the device's rates, measured on two of its blocks.

    random weights, two blocks ──forward and backward──> share of the rate of products
                               ──decoding, two rows────> seconds of a block for one token

Products of a narrow model are short, and what is between them takes as long as they do: no data
sheet tells how long. A wide one is not built for it; see `devices.REACHED`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tutelage.config.sharing import SMALL_MODEL
from tutelage.pipeline.plan.devices import PACE, Pace, Rates, fastest
from tutelage.pipeline.plan.memory import FLOAT
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.work import forward_flops

__all__ = ["measured_pace"]

_ROWS, _LENGTH = 16, 64
"""Of the micro-batch: `config.training.PRETRAIN_TOKENS` in all."""
_BLOCKS = 2
_VOCABULARY = 4096
"""Of the model at most: embeddings take memory, and no time."""
_STEPS = 16


def measured_pace(size: ModelSize, kind: str, rates: Rates, *, budget: float = 0.5) -> Pace:
    """The pace of one core, or of the GPU, with a model such as this one.

    Args:
        size: of the model.
        kind: cpu or cuda.
        rates: of what is measured: one core, or the GPU.
        budget: seconds for each of the two.

    Returns:
        That of `devices.PACE` where two blocks alone are larger than a small model, or the model
        is not of the Llama family.
    """
    small = _two_blocks(size)
    if not size.fast or small.linear + small.head > SMALL_MODEL:
        return PACE[kind]
    import torch

    before, random = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        model = _model(small).to(kind)
        trained = fastest(_training(model, small), kind, budget)
        with torch.no_grad():
            decoded = fastest(_decoding(model, small), kind, budget) / _STEPS
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(random)
    flops = 3.0 * forward_flops(small, _ROWS, _LENGTH, _LENGTH / 2)
    reading = FLOAT * (small.linear + small.head) / rates.bandwidth
    return Pace(
        reached=min(1.0, flops / (trained * rates.float32)),
        step=max(0.0, decoded - reading) / (_BLOCKS + 1),
    )


def _two_blocks(size: ModelSize) -> ModelSize:
    linear = _BLOCKS * size.linear // max(1, size.layers)
    vocabulary = min(size.vocabulary, _VOCABULARY)
    return replace(size, linear=linear, layers=_BLOCKS, vocabulary=vocabulary)


def _model(size: ModelSize) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_size,
        intermediate_size=size.mlp,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def _training(model: Any, size: ModelSize) -> Callable[[], None]:
    import torch

    from tutelage.experience import TokenBatch
    from tutelage.models import Policy
    from tutelage.trainers.sft import imitation_loss

    policy = Policy(model)
    ids = torch.randint(size.vocabulary, (_ROWS, _LENGTH)).tolist()
    weights = [0.0] * (_LENGTH // 2) + [1.0] * (_LENGTH // 2)
    batch = TokenBatch.collate([(row, weights) for row in ids], pad=0).to(model.device)

    def step() -> None:
        imitation_loss(policy, batch, 1.0).loss.backward()
        model.zero_grad()

    return step


def _decoding(model: Any, size: ModelSize) -> Callable[[], None]:
    import torch

    from tutelage.generation.draw import draw
    from tutelage.models.decoder import Decoder

    decoder = Decoder(model, torch.float32)
    source = torch.Generator(model.device).manual_seed(0)
    prompt = torch.ones(2, 8, dtype=torch.long, device=model.device)
    start = torch.zeros(2, dtype=torch.long, device=model.device)

    def decode() -> None:
        logits, cache = decoder.prefill(prompt, start)
        for _ in range(_STEPS):
            uniform = torch.rand(2, generator=source, device=model.device)
            logits = decoder.step(draw(logits, 1.0, uniform)[0], cache)

    return decode
