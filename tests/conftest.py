"""Fixtures shared by all tests: determinism, a tiny tokenizer, tiny models of four families.

Models are built from configurations with random weights: no file and no network is needed.
transformers is imported where it is used, because that takes longer than most tests.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from tutelage.config import Stage

torch.set_num_threads(1)

settings.register_profile("tutelage", derandomize=True, deadline=None, database=None)
settings.load_profile("tutelage")

ARCHITECTURES = ("llama", "gpt2", "qwen2", "gpt_neox")
"""The families that padding, position and caching tests run over."""

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>")
CHARACTERS = string.ascii_lowercase + string.digits + " \n.,!?'\":;-()/+=%&@#*"
TINY_VOCABULARY = len(SPECIAL_TOKENS) + len(CHARACTERS)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(autouse=True)
def same_seed_for_every_test() -> Iterator[None]:
    """Tests pass in any order and on any worker, because each starts from the same state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def write_manifest() -> "Callable[[Path, Stage], None]":
    """Makes a folder that of a finished stage, but for the hashes of its files."""
    from tutelage.tracking.manifest import MANIFEST, Manifest

    def write(folder: Path, stage: "Stage") -> None:
        row = stage.to_json()
        told = {"kind": row["kind"], "stage": folder.name, "fingerprint": "f", "seed": 0}
        times = {"started": "", "finished": "", "seconds": 0.0}
        empty: dict[str, Any] = {"inputs": {}, "versions": {}, "metrics": {}, "files": {}}
        manifest = Manifest(config={"seed": 0, **row}, **told, **times, **empty)
        (folder / MANIFEST).write_text(json.dumps(manifest.to_json()))

    return write


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per character, 64 in all, with a chat template; upper case becomes lower."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def pair_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per character, no chat template: [CLS] question [SEP] answer [SEP]."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    letters = "abcdefghijklmnopqrstuvwxyz .,:?!<|>[]_"
    vocabulary = {token: i for i, token in enumerate((*specials, *letters))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def tiny_causal_lm() -> "Callable[..., PreTrainedModel]":
    """Builds a fresh two-layer model of width 32: `tiny_causal_lm("gpt2", vocab_size=64)`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(
        architecture: str = "llama",
        vocab_size: int = TINY_VOCABULARY,
        *,
        seed: int = 0,
        **overrides: Any,
    ) -> "PreTrainedModel":
        config = AutoConfig.for_model(
            architecture, **{**_tiny(architecture, vocab_size), **overrides}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config).eval()

    return build


@pytest.fixture
def tiny_scorer() -> "PreTrainedModel":
    """A fresh one-layer Llama of width 16 that gives a sequence one score."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()


def _tiny(architecture: str, vocab_size: int) -> dict[str, Any]:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocab_size}
    # Weights wide enough that a wrong position or mask shows in the log-probabilities.
    wide = {"initializer_range": 0.2}
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
        dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        return {**ids, **wide, **sizes, **dropout}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    if architecture in ("llama", "qwen2"):
        sizes["num_key_value_heads"] = 1
    return {**ids, **wide, **sizes}


@pytest.fixture(scope="session")
def relative_gap() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """`relative_gap(a, b)`: |a - b| / |b| in the Euclidean norm."""

    def gap(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = a.detach().double(), b.detach().double()
        return ((a - b).norm() / b.norm()).item()

    return gap
