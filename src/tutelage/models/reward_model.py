"""A reward model: text in, score out, with a tokenizer of its own.

    prompt (messages), answer (text) ──own template──> own tokens ──> score at the last token

It never sees the policy's token ids, and it never looks for markers in a decoded string:
prompt and answer arrive as fields. Any sequence-classification model serves, causal
(Llama-like) or encoder (BERT, DeBERTa).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutelage.config.training import READ_TOKENS
from tutelage.data.chat import encode_conversation, encode_text
from tutelage.distributed import Cores
from tutelage.errors import ModelError
from tutelage.models.causal import Backbone, autocast, scalar_head
from tutelage.models.load import load_sequence_classifier, load_tokenizer, save_model
from tutelage.models.microbatches import MicroBatches
from tutelage.models.shared_prefix import SharedPrefixRows
from tutelage.records import Message, Prompt

__all__ = ["RewardModel", "RewardScale"]

_SCALE_FILE = "reward_scale.json"


@dataclass(frozen=True)
class RewardScale:
    """What turns raw scores into units in which penalties and clips have a meaning.

    A score is reported as `(raw - mean) / std`, so that answers of the reference policy have
    mean 0 and variance 1.
    """

    mean: float = 0.0
    std: float = 1.0
    length_slope: float = 0.0
    """Sigmas that the model pays for one more token."""
    length_threshold: float = 0.0
    """Tokens: the 90 % quantile of the calibration answers' lengths."""
    floor: float = 0.0
    """Lowest calibration score, in sigmas: what a truncated answer should not exceed."""


class RewardModel(nn.Module):
    """Scores answers to prompts."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int = 512,
        compute: torch.dtype = torch.float32,
        scale: RewardScale | None = None,
    ) -> None:
        """Wraps a sequence-classification model with one label.

        Args:
            model: with `num_labels=1`.
            tokenizer: the model's own, with a pad token.
            max_length: tokens of a prompt with its answer; longer ones cannot be scored. Never
                more than the model has positions for.
            compute: autocast format.
            scale: normalisation of the scores.

        Raises:
            ModelError: the tokenizer has no pad token, or the model another one.
        """
        super().__init__()
        if tokenizer.pad_token_id is None:
            raise ModelError("the reward model's tokenizer has no pad token: set one")
        if model.config.pad_token_id != tokenizer.pad_token_id:
            raise ModelError(
                f"the reward model's pad_token_id is {model.config.pad_token_id}, its tokenizer's "
                f"is {tokenizer.pad_token_id}: they must agree, or scores are read at padding"
            )
        self.model = model
        self.tokenizer = tokenizer
        positions = getattr(model.config, "max_position_embeddings", max_length)
        self.max_length = min(max_length, positions, tokenizer.model_max_length)
        self.compute = compute
        self.backbone = Backbone(model, compute)
        self.scale = scale or RewardScale()

    @property
    def causal(self) -> bool:
        """Whether the score is read at the last token by a linear head over a causal backbone."""
        return isinstance(getattr(self.model, "score", None), nn.Linear)

    def encode(self, prompt: Prompt, answer: str) -> tuple[int, ...] | None:
        """The model's own token ids of a prompt with its answer; None when they are too many."""
        ids = _encode(self.tokenizer, prompt, answer)
        return tuple(ids) if len(ids) <= self.max_length else None

    def forward(
        self, tokens: Int[Tensor, "batch time"], attention_mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, " batch"]:
        """Raw scores, read at the last real token, wherever the padding lies."""
        if not self.causal:
            return self._encoder_scores(tokens, attention_mask)
        hidden = self.backbone(tokens, attention_mask)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        last = torch.where(attention_mask, positions, -1).max(1).values
        return self._head(hidden[torch.arange(len(tokens), device=tokens.device), last])

    def _head(self, final: Tensor) -> Tensor:
        return scalar_head(cast(nn.Linear, self.model.score), final)

    def of_groups(self, groups: Sequence[Sequence[Sequence[int]]]) -> Float[Tensor, " sequences"]:
        """Raw scores of encoded texts, group by group; what a group shares is read once.

        The same numbers as `forward` gives for each text, up to rounding.
        """
        if self.causal and self.backbone.reads_shared_prefixes:
            rows = SharedPrefixRows.collate(
                groups, pad=int(self.tokenizer.pad_token_id), device=self.model.device
            )
            return self._head(self.backbone.of_shared_prefixes(rows))
        return self(*self.pad([ids for group in groups for ids in group]))

    def _encoder_scores(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of an encoder, whose first position must hold the first real token."""
        right = attention_mask.long().argsort(dim=1, descending=True, stable=True)
        tokens, attention_mask = tokens.gather(1, right), attention_mask.gather(1, right)
        inputs = {"input_ids": tokens, "attention_mask": attention_mask.long()}
        if self._tells_segments_apart:
            inputs["token_type_ids"] = self._segments(tokens)
        with autocast(tokens.device, self.compute):
            scores: Tensor = self.model(**inputs).logits
        return scores.squeeze(-1).float()

    @property
    def _tells_segments_apart(self) -> bool:
        by_tokenizer = "token_type_ids" in self.tokenizer.model_input_names
        return by_tokenizer and getattr(self.model.config, "type_vocab_size", 0) > 1

    def _segments(self, tokens: Tensor) -> Tensor:
        """0 up to the separator after the question, 1 behind it: how BERT tells them apart.

        Only the tokenizer writes separators: in text they are spelt out, see `encode`.
        """
        separators = (tokens == self.tokenizer.sep_token_id).long()
        return (separators.cumsum(1) - separators).clamp(max=1)

    def pad(
        self, rows: Sequence[Sequence[int]]
    ) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
        """Right-padded token ids and their mask."""
        width = max(map(len, rows))
        tokens = torch.full((len(rows), width), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = True
        device = self.model.device
        return tokens.to(device), mask.to(device)

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        batch_tokens: int = READ_TOKENS,
        cores: Cores | None = None,
    ) -> list[float | None]:
        """Normalised scores; None for a text too long to be scored whole.

        Args:
            prompts, answers: in pairs.
            batch_tokens: read at once, padding included; fewer where memory runs out.
            cores: read a batch each.
        """
        encoded = [self.encode(p, a) for p, a in zip(prompts, answers, strict=True)]
        whole = [i for i, row in enumerate(encoded) if row]
        rows = [encoded[i] or () for i in whole]

        def read(chosen: list[int]) -> list[float]:
            tokens, mask = self.pad([rows[i] for i in chosen])
            scores: list[float] = ((self(tokens, mask) - self.scale.mean) / self.scale.std).tolist()
            return scores

        values = MicroBatches(batch_tokens).values([len(row) for row in rows], read, cores)
        scores: list[float | None] = [None] * len(encoded)
        for i, value in zip(whole, values, strict=True):
            scores[i] = value
        return scores

    def with_scale(self, **changes: float) -> Self:
        """Changes the scale in place and returns the model."""
        self.scale = replace(self.scale, **changes)
        return self

    def with_model(self, model: PreTrainedModel) -> Self:
        """The same tokenizer, limits and scale around another model."""
        return type(self)(
            model,
            self.tokenizer,
            max_length=self.max_length,
            compute=self.compute,
            scale=self.scale,
        )

    def save(self, folder: str | Path) -> None:
        """Writes a transformers folder with the scale beside it."""
        save_model(self.model, self.tokenizer, folder)
        row = {**asdict(self.scale), "max_length": self.max_length}
        (Path(folder) / _SCALE_FILE).write_text(json.dumps(row, indent=2) + "\n")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_length: int | None = None,
        compute: torch.dtype = torch.float32,
        quantised: Mapping[str, Any] | None = None,
    ) -> Self:
        """Any sequence-classification folder; the scale is read where there is one."""
        tokenizer = load_tokenizer(folder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model = load_sequence_classifier(folder, tokenizer.pad_token_id, quantised)
        path = Path(folder) / _SCALE_FILE
        row = json.loads(path.read_text()) if path.is_file() else {}
        stored = row.pop("max_length", 512)
        return cls(
            model,
            tokenizer,
            max_length=max_length or stored,
            compute=compute,
            scale=RewardScale(**row),
        )


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, answer: str) -> list[int]:
    """A chat model's own template, or an encoder's own pair of question and answer."""
    if tokenizer.chat_template is not None:
        if prompt.mode == "continuation":
            return encode_text(tokenizer, prompt.text + answer)
        return encode_conversation(tokenizer, (*prompt.messages, Message("assistant", answer)))
    if prompt.mode == "continuation":
        ids = tokenizer(prompt.text + answer, split_special_tokens=True)["input_ids"]
    else:
        question = "\n".join(f"{turn.role}: {turn.content}" for turn in prompt.messages)
        if len(prompt.messages) == 1:
            question = prompt.text
        ids = tokenizer(question, answer, split_special_tokens=True)["input_ids"]
    return list(ids)
