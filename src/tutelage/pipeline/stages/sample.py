"""Draws several completions for each prompt."""

from contextlib import closing
from typing import Any

from tutelage.config import SampleStage
from tutelage.data.loaders import load_prompts
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import Speed, encode, local_engine, sampling_of
from tutelage.records import Completion, Prompt
from tutelage.tracking.cost import RESPONSE_TOKENS
from tutelage.tracking.sinks import JsonLinesFile

__all__ = ["run"]


def run(config: SampleStage, context: StageContext) -> dict[str, float]:
    """Samples batch by batch and writes one row per prompt."""
    engine, tokenizer, source = local_engine(
        context.resolve(config.model, "model"), config.sampling, context
    )
    prompts = load_prompts(context.resolve(config.prompts, "prompts.jsonl"), config.limit)
    encoded = encode(context, tokenizer, prompts, config.max_prompt_tokens)
    sampling = sampling_of(config.sampling, tokenizer)
    count = sampling.samples_per_prompt
    size = max(1, config.sampling.batch_size // count) * 4
    totals = {"prompts": 0, "tokens": 0, "truncated": 0}
    speed = Speed()
    with (
        context.checkpoints.track(generator=source, totals=totals) as checkpoints,
        closing(JsonLinesFile(context.folder / "samples.jsonl")) as rows,
    ):
        for start in range(totals["prompts"], len(encoded), size):
            chosen = encoded[start : start + size]
            completions = engine.generate(chosen, sampling)
            for i, prompt in enumerate(chosen):
                rows.append(_row(prompt.prompt, completions[i * count : (i + 1) * count]))
            tokens = sum(len(completion.tokens) for completion in completions)
            totals["prompts"] += len(chosen)
            totals["tokens"] += tokens
            totals["truncated"] += sum(completion.truncated for completion in completions)
            metrics = {
                "response/length": tokens / len(completions),
                "throughput/tokens_per_second": speed.read(tokens),
            }
            context.metrics.log(totals["prompts"], metrics)
            context.progress.step(totals["prompts"], len(encoded), metrics)
            checkpoints.boundary(totals["prompts"])
    total = totals["prompts"] * count
    return {
        "completions": float(total),
        "length": totals["tokens"] / total,
        "truncated": totals["truncated"] / total,
        RESPONSE_TOKENS: float(totals["tokens"]),
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
