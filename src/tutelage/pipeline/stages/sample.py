"""Draws several completions for each prompt."""

from typing import Any

from tutelage.config import SampleStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.generation import LocalEngine
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    encode,
    generator,
    load_policy,
    sampling_of,
)
from tutelage.records import Completion, Prompt

__all__ = ["run"]


def run(config: SampleStage, context: StageContext) -> dict[str, float]:
    """Samples batch by batch and writes one row per prompt."""
    policy, tokenizer = load_policy(
        context.resolve(config.model, "model"), temperature=config.sampling.temperature
    )
    prompts = load_prompts(context.resolve(config.prompts, "prompts.jsonl"), config.limit)
    encoded = encode(context, tokenizer, prompts, config.max_prompt_tokens)
    engine = LocalEngine(
        policy,
        tokenizer,
        generator(context, policy.model.device),
        batch_size=config.sampling.batch_size,
    )
    sampling = sampling_of(config.sampling, tokenizer)
    count = sampling.samples_per_prompt
    size = max(1, config.sampling.batch_size // count) * 4
    rows: list[dict[str, Any]] = []
    lengths, truncated, speed = 0, 0, Speed()
    for start in range(0, len(encoded), size):
        chosen = encoded[start : start + size]
        completions = engine.generate(chosen, sampling)
        for i, prompt in enumerate(chosen):
            rows.append(_row(prompt.prompt, completions[i * count : (i + 1) * count]))
        tokens = sum(len(completion.tokens) for completion in completions)
        lengths += tokens
        truncated += sum(completion.truncated for completion in completions)
        metrics = {
            "response/length": tokens / len(completions),
            "throughput/tokens_per_second": speed.read(tokens),
        }
        context.metrics.log(len(rows), metrics)
        context.progress.step(len(rows), len(encoded), metrics)
    write_jsonl(context.folder / "samples.jsonl", rows)
    total = len(rows) * count
    return {
        "completions": float(total),
        "length": lengths / total,
        "truncated": truncated / total,
    }


def _row(prompt: Prompt, completions: list[Completion]) -> dict[str, Any]:
    """A prompt with its completions; token ids and log-probabilities exactly as drawn."""
    return {
        **prompt.to_json(),
        "completions": [
            {key: value for key, value in completion.to_json().items() if key != "prompt_id"}
            for completion in completions
        ],
    }
