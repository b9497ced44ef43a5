"""Trains a tokenizer and a small causal language model from nothing.

Documents that mark their facts weigh them fully and everything else little: copying a value
from the conversation is learned within a million tokens that way, and hardly at all otherwise.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tutelage.config import BatchConfig, PretrainStage
from tutelage.config.training import PRETRAIN_TOKENS
from tutelage.data.chat import encode_text
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_demonstrations, load_texts
from tutelage.data.tokenizer import train_tokenizer
from tutelage.errors import DataError
from tutelage.models import Policy, new_llama, save_model
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    Speed,
    compute_dtype,
    device,
    generator,
    new_learner,
    share_out,
)
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.sft import WeightedSequence, perplexity, sft

__all__ = ["run"]

_HELD_OUT = 64
"""Sequences that measure progress and are not trained on."""
_TOKENIZER_DOCUMENTS = 4000


def run(config: PretrainStage, context: StageContext) -> dict[str, float]:
    """Trains until the steps are used up or facts are copied accurately enough."""
    paths = context.resolve_all(config.data, "documents.jsonl")
    tokenizer, sequences = _corpus(config, context, paths)
    if len(sequences) <= _HELD_OUT:
        raise DataError(
            f"{len(sequences)} sequences of text are too few to train on: give at least "
            f"{_HELD_OUT + 1}, that is more text or a smaller `length`"
        )
    held_out, training = sequences[:_HELD_OUT], sequences[_HELD_OUT:]
    model = new_llama(
        tokenizer,
        hidden_size=config.model.hidden_size,
        layers=config.model.layers,
        heads=config.model.heads,
        mlp_size=config.model.mlp_size,
        context=config.model.context,
    )
    model.to(device())  # type: ignore[arg-type]
    policy = Policy(model, compute=compute_dtype(config.precision))
    result = _train(config, context, policy, tokenizer, training, held_out)
    save_model(model, tokenizer, context.folder / "model")
    result["parameters"] = float(sum(weight.numel() for weight in model.parameters()))
    result["vocabulary"] = float(len(tokenizer))
    return result


def _train(
    config: PretrainStage,
    context: StageContext,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[WeightedSequence],
    held_out: Sequence[WeightedSequence],
) -> dict[str, float]:
    facts = _facts_only(held_out)
    pad = int(tokenizer.pad_token_id or 0)
    source, cores = generator(context), share_out(context, policy.model)
    optimizer = Optimizer(policy.model, config.optimizer, config.steps)
    learner = new_learner(
        context,
        {"pretrain": optimizer},
        BatchConfig(minibatch=config.rows, microbatch_tokens=PRETRAIN_TOKENS),
        source,
        cores,
    )
    batches = Shuffled(training, config.rows, config.steps, source)
    result = {"tokens": 0.0, "steps": 0.0}
    speed, every = Speed(), max(1, min(25, config.steps // 10))
    with context.checkpoints.track(
        model=policy.model, learner=learner, batches=batches, result=result
    ) as checkpoints:
        for step in sft(policy, learner, batches, pad=pad, start=batches.taken):
            done = step.index + 1
            result["tokens"] += step.tokens
            result["steps"] = float(done)
            metrics = {
                "pretrain/loss": step.metrics["loss"],
                "train/skipped": step.metrics["train/skipped"],
                "throughput/tokens_per_second": speed.read(step.tokens),
            }
            if done % every == 0 or done == config.steps:
                result["loss"], result["accuracy"] = perplexity(
                    policy, held_out, pad=pad, cores=cores
                )
                metrics["pretrain/held_out_loss"] = result["loss"]
                if facts:
                    result["fact_loss"], result["fact_accuracy"] = perplexity(
                        policy, facts, pad=pad, cores=cores
                    )
                    metrics["pretrain/fact_accuracy"] = result["fact_accuracy"]
            context.metrics.log(step.index, metrics)
            context.progress.step(done, config.steps, metrics)
            if facts and result.get("fact_accuracy", 0.0) >= config.fact_accuracy:
                context.progress.message(
                    f"facts are copied with accuracy {result['fact_accuracy']:.3f} "
                    f"after {done} steps: enough"
                )
                break
            checkpoints.boundary(done)
    return result


def _facts_only(sequences: Sequence[WeightedSequence]) -> list[WeightedSequence]:
    """The same sequences with weight on facts alone; empty where no facts are marked."""
    if not any(0.0 < weight < 1.0 for _, weights in sequences for weight in weights):
        return []
    return [(ids, [float(weight == 1.0) for weight in weights]) for ids, weights in sequences]


def _corpus(
    config: PretrainStage, context: StageContext, paths: Sequence[Path]
) -> tuple[PreTrainedTokenizerBase, list[WeightedSequence]]:
    rows = [row for path in paths[:1] for _, row in islice(read_jsonl(path), 1)]
    if rows and "facts" in rows[0]:
        return _recall_corpus(config, context, paths)
    return _text_corpus(config, context, paths)


def _recall_corpus(
    config: PretrainStage, context: StageContext, paths: Sequence[Path]
) -> tuple[PreTrainedTokenizerBase, list[WeightedSequence]]:
    """Conversations whose facts are marked."""
    documents = [row for path in paths for _, row in read_jsonl(path)]
    demonstrations = [
        demonstration
        for path in context.resolve_all(config.tokenizer_data, "sft.jsonl")
        for demonstration in load_demonstrations(path, _TOKENIZER_DOCUMENTS)
    ]
    texts = chain(
        (
            f" {message['content']}"
            for document in documents[:_TOKENIZER_DOCUMENTS]
            for message in document["messages"]
        ),
        (f" {message.content}" for row in demonstrations for message in row.messages),
    )
    tokenizer = train_tokenizer(
        texts, config.model.vocabulary, whole_numbers=True, role_tokens=True
    )
    return tokenizer, _weigh_facts(config, tokenizer, documents)


def _weigh_facts(
    config: PretrainStage, tokenizer: PreTrainedTokenizerBase, documents: Sequence[dict[str, Any]]
) -> list[WeightedSequence]:
    """Token ids of conversations with a weight for each: facts count fully.

    The conversations are rendered here, as `ROLE_TOKENS_TEMPLATE` does, to know where facts lie.
    """
    rendered, weighted_spans = [], []
    for document in documents:
        text, spans = "", []
        for index, message in enumerate(document["messages"]):
            text += f"<|{message['role']}|>"
            start = len(text) + 1
            text += f" {message['content']}<|im_end|>"
            spans += [(start + a, start + b, 1.0) for i, a, b in document["facts"] if i == index]
            if message["role"] == "assistant":
                spans.append((start - 1, len(text), config.other_weight))
        rendered.append(text)
        weighted_spans.append(spans)
    encoded = tokenizer(rendered, return_offsets_mapping=True, add_special_tokens=False)
    return [
        (ids, [_weight(offset, spans, config.read_weight) for offset in offsets])
        for ids, offsets, spans in zip(
            encoded["input_ids"], encoded["offset_mapping"], weighted_spans, strict=True
        )
    ]


def _weight(
    token: tuple[int, int], spans: Sequence[tuple[int, int, float]], otherwise: float
) -> float:
    """Weight of the first span that the token lies in."""
    return next((w for start, end, w in spans if token[0] < end and start < token[1]), otherwise)


def _text_corpus(
    config: PretrainStage, context: StageContext, paths: Sequence[Path]
) -> tuple[PreTrainedTokenizerBase, list[WeightedSequence]]:
    """Plain texts, joined by end-of-text tokens and cut into sequences of one length."""
    texts = [text for path in paths for text in load_texts(path)]
    tokenizer = train_tokenizer(texts, config.model.vocabulary, role_tokens=True)
    context.progress.message(f"{len(texts)} texts, vocabulary {len(tokenizer)}")
    return tokenizer, list(_packed(tokenizer, texts, config.length, context))


def _packed(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, context: StageContext
) -> Iterator[WeightedSequence]:
    source = generator(context)
    order = torch.randperm(len(texts), generator=source).tolist()
    stream: list[int] = []
    for index in order:
        stream += encode_text(tokenizer, texts[index])
        while len(stream) >= length:
            yield stream[:length], [1.0] * length
            stream = stream[length:]
