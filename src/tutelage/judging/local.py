"""A judge model in this process: a folder with a causal language model.

    question ──chat template──> ids ──> next-token distribution ──> P(label), exactly
             └─ for reasons ──> greedy decoding

The probability of a label is that of its tokens, written with a space before it or without;
where one label begins another (1 and 10), what is the longer one's is not the shorter one's. No
text is drawn, so a judge that would rather say something else is known by the labels' mass.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import DataError, ModelError
from tutelage.judging.reply import AskError, JudgeRequest, ModelReply, Token
from tutelage.tracking.fingerprint import file_fingerprint, fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LocalModel", "label_masses"]

Ids = tuple[int, ...]


class LocalModel:
    """Reads questions with a model's own chat template, one after the other."""

    def __init__(self, folder: str | Path, *, device: str | None = None) -> None:
        """Loads the model.

        Args:
            folder: of the model, or of the stage that trained it.
            device: where it is run; a GPU, where there is one, when absent.

        Raises:
            ModelError: the folder holds no causal model, or its tokenizer has no chat template.
        """
        import torch

        from tutelage.data.template import ChatCodec
        from tutelage.models.load import freeze, load_causal_lm, load_tokenizer

        self.folder = Path(folder) / "model" if (Path(folder) / "model").is_dir() else Path(folder)
        tokenizer: PreTrainedTokenizerBase = load_tokenizer(self.folder)
        if tokenizer.chat_template is None:
            raise ModelError(
                f"the tokenizer in {self.folder} has no chat template: a judge reads questions as "
                "a conversation; use a model that was trained on some"
            )
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model: PreTrainedModel = load_causal_lm(self.folder)
        freeze(self.model)
        if where != "cpu":
            self.model.to(where, torch.bfloat16)  # type: ignore[arg-type]
        self.codec = ChatCodec(tokenizer)
        self._identity = _identity(self.folder)

    @property
    def name(self) -> str:
        """The folder's name; that of the stage where the model lies in one."""
        own = self.folder.resolve()
        return own.parent.name if own.name == "model" else own.name

    @property
    def identity(self) -> dict[str, Any]:
        """A hash of the model's files."""
        return {"local": self._identity}

    async def ask(self, request: JudgeRequest) -> ModelReply:
        """The labels' probabilities, or a text where there are no labels.

        Raises:
            AskError: the question is longer than the model can read.
        """
        try:
            prompt = self.codec.prompt(request.messages)
        except DataError as error:
            raise AskError(str(error)) from error
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and len(prompt) + request.max_tokens > longest:
            raise AskError(
                f"the question has {len(prompt)} tokens and its answer up to {request.max_tokens}, "
                f"the model reads {longest}"
            )
        if not request.labels:
            text, length, cut = self._write(prompt, request.max_tokens)
            return ModelReply(text, None, len(prompt), length, cut)
        masses = self._masses(prompt, request.labels)
        likeliest = max(masses, key=lambda label: masses[label])
        return ModelReply(likeliest, (Token(likeliest, masses),), len(prompt), 1)

    async def close(self) -> None:
        """Nothing is open."""

    def _masses(self, prompt: Sequence[int], labels: Sequence[str]) -> dict[str, float]:
        spellings = {
            label: {ids for text in (label, f" {label}") if (ids := tuple(self.codec.plain(text)))}
            for label in labels
        }
        every = sorted({ids for spelled in spellings.values() for ids in spelled})
        probabilities = self._probabilities(prompt, every)
        return label_masses(spellings, dict(zip(every, probabilities, strict=True)))

    def _probabilities(self, prompt: Sequence[int], endings: Sequence[Ids]) -> list[float]:
        """P(ending | prompt) of each, the prompt being read once where they are single tokens."""
        import torch

        device = self.model.device
        rows = sorted({ending[:-1] for ending in endings})
        found: dict[Ids, float] = {}
        with torch.inference_mode():
            for begun in rows:
                ids = torch.tensor([[*prompt, *begun]], device=device)
                logits = self.model(input_ids=ids, logits_to_keep=len(begun) + 1).logits[0]
                logprobs = logits.float().log_softmax(-1)
                given = sum(float(logprobs[i, token]) for i, token in enumerate(begun))
                for ending in endings:
                    if ending[:-1] == begun:
                        found[ending] = math.exp(given + float(logprobs[-1, ending[-1]]))
        return [found[ending] for ending in endings]

    def _write(self, prompt: Sequence[int], most: int) -> tuple[str, int, bool]:
        import torch

        ids = torch.tensor([list(prompt)], device=self.model.device)
        stops = sorted(self.codec.stops.values())
        with torch.inference_mode():
            written = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                use_cache=True,
                eos_token_id=stops,
                pad_token_id=stops[0] if stops else 0,
            )[0, len(prompt) :].tolist()
        text = str(self.codec.tokenizer.decode(written, skip_special_tokens=True))
        return text, len(written), not written or written[-1] not in stops


def label_masses(
    spellings: dict[str, set[Ids]], probabilities: dict[Ids, float]
) -> dict[str, float]:
    """What each label has of the probability, the longer labels' share taken off the shorter's.

    Args:
        spellings: ways to write each label.
        probabilities: that a reply begins with each of them.
    """

    def own(ids: Ids) -> float:
        longer = [
            other for other in probabilities if len(other) > len(ids) and other[: len(ids)] == ids
        ]
        return max(0.0, probabilities[ids] - sum(probabilities[other] for other in longer))

    return {label: sum(map(own, spelled)) for label, spelled in spellings.items()}


def _identity(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return fingerprint({path.name: file_fingerprint(path) for path in files})
