"""Supervised fine-tuning on demonstrations: loss on what the assistant says, nothing else."""

import math
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tutelage.config import SFTStage
from tutelage.data.chat import IGNORED, encode_demonstrations
from tutelage.data.loaders import load_demonstrations
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    generator,
    new_learner,
    policy_to_train,
    save_policy,
    share_out,
)
from tutelage.records import Demonstration
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.sft import WeightedSequence, perplexity, sft

__all__ = ["run"]


def run(config: SFTStage, context: StageContext) -> dict[str, float]:
    """Fine-tunes and saves the model."""
    policy, tokenizer, part = policy_to_train(config, context)
    paths = context.resolve_all(config.data, "sft.jsonl")
    demonstrations = [row for path in paths for row in load_demonstrations(path)][: config.limit]
    sequences = _encode(config, context, tokenizer, demonstrations)
    held_out_count = min(256, max(1, len(sequences) // 20))
    held_out, training = sequences[:held_out_count], sequences[held_out_count:] or sequences
    steps = max(1, math.ceil(config.epochs * len(training) / config.batch.minibatch))
    source = generator(context)
    cores = share_out(context, policy.model, config.lora)
    optimizer = Optimizer(part.weights, config.optimizer, steps)
    learner = new_learner(context, {"sft": optimizer}, config.batch, source, cores)
    pad = int(tokenizer.pad_token_id or 0)
    before, _ = perplexity(policy, held_out, pad=pad, cores=cores)
    speed = Speed()
    batches = Shuffled(training, config.batch.minibatch, steps, source)
    with context.checkpoints.track(model=part, learner=learner, batches=batches) as checkpoints:
        for step in sft(policy, learner, batches, pad=pad, start=batches.taken):
            metrics = {
                "sft/loss": step.metrics["loss"],
                "sft/perplexity": math.exp(min(20.0, step.metrics["loss"])),
                "sft/accuracy": step.metrics["accuracy"],
                "sft/gradient_norm": step.metrics["sft/gradient_norm"],
                "sft/learning_rate": step.metrics["sft/learning_rate"],
                "sft/tokens": float(step.tokens),
                "train/skipped": step.metrics["train/skipped"],
                "throughput/tokens_per_second": speed.read(step.tokens),
            }
            context.metrics.log(step.index, metrics)
            context.progress.step(step.index + 1, steps, metrics)
            checkpoints.boundary(step.index + 1)
    tuned = policy.around(part.merged())
    after, accuracy = perplexity(tuned, held_out, pad=pad, cores=cores)
    save_policy(
        context,
        tuned.model,
        tokenizer,
        "A language model fine-tuned on demonstrations.",
        {
            "SFT": f"{steps} steps on {len(training)} demonstrations from {config.model}",
            **part.card,
        },
    )
    part.save(context.folder / "adapter", config.model)
    return {
        "demonstrations": float(len(training)),
        "held_out_loss_before": before,
        "held_out_loss": after,
        "held_out_accuracy": accuracy,
    }


def _encode(
    config: SFTStage,
    context: StageContext,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Sequence[Demonstration],
) -> list[WeightedSequence]:
    encoded = encode_demonstrations(tokenizer, demonstrations, config.max_length)
    if encoded.num_too_long:
        context.progress.message(
            f"{encoded.num_too_long} of {len(demonstrations)} demonstrations exceed "
            f"{config.max_length} tokens and are left out"
        )
    return [(ids, [float(label != IGNORED) for label in labels]) for ids, labels in encoded.rows]
