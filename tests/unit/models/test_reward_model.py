"""A reward model: text in, a score at the last real token out, a tokenizer of its own."""

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from tutelage.errors import ModelError
from tutelage.models import RewardModel
from tutelage.records import Message, Prompt

CAUSAL = ("llama", "gpt2", "qwen2", "gpt_neox")
ENCODERS = ("bert", "deberta-v2")


def question(text: str) -> Prompt:
    return Prompt(text, (Message("user", text),))


@pytest.fixture
def build(tiny_tokenizer, pair_tokenizer) -> Callable[..., RewardModel]:
    """`build("bert")`: a reward model of the family with its kind of tokenizer."""

    def make(architecture: str, **options) -> RewardModel:
        tokenizer = pair_tokenizer if architecture in ENCODERS else tiny_tokenizer
        return RewardModel(classifier(architecture, len(tokenizer)), tokenizer, **options)

    return make


def classifier(architecture: str, vocabulary: int) -> PreTrainedModel:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    if architecture in ("llama", "qwen2"):
        sizes["num_key_value_heads"] = 1
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    if architecture == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": "p2c|c2p", "type_vocab_size": 0}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocabulary,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.2,
        **sizes,
    )
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


ROWS = ([1, 5, 6, 2, 9, 2], [1, 7, 8, 9, 10, 11, 2, 5, 6, 7, 2], [1, 4, 2, 30, 2])


def padded(width: int, side: str, filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.full((len(ROWS), width), filler)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, row in enumerate(ROWS):
        start = width - len(row) if side == "left" else 0
        tokens[i, start : start + len(row)] = torch.tensor(row)
        mask[i, start : start + len(row)] = True
    return tokens, mask


@pytest.mark.parametrize("architecture", CAUSAL + ENCODERS)
def test_score_does_not_depend_on_padding_or_company(build, architecture):
    model = build(architecture)
    with torch.no_grad():
        expected = torch.cat(
            [model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)) for row in ROWS]
        )
        for side in ("left", "right"):
            for width in (11, 30):
                for filler in (0, 2, 17):
                    found = model(*padded(width, side, filler))
                    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.01


def test_reading_at_the_last_id_that_is_not_padding_would_be_wrong(build):
    """Negative control: what transformers does when rows are padded with another id."""
    model = build("llama")
    with torch.no_grad():
        tokens, mask = padded(30, "right", 2)
        theirs = model.model(input_ids=tokens, attention_mask=mask.long()).logits.squeeze(1)
        assert (theirs - model(tokens, mask)).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ENCODERS)
def test_encoder_scores_what_its_own_tokenizer_makes_of_the_pair(build, architecture):
    model = build(architecture)
    prompts, answers = [question("how are you?"), question("so")], ["fine. and you?", "so what"]
    with torch.no_grad():
        direct = [
            model.model(**model.tokenizer(p.text, a, return_tensors="pt")).logits.item()
            for p, a in zip(prompts, answers, strict=True)
        ]
    assert model.score(prompts, answers) == pytest.approx(direct, abs=1e-5)


def test_question_and_answer_are_told_apart_where_the_model_can(build):
    model = build("bert")
    ids = torch.tensor([model.encode(question("abc"), "abcdef")])
    with torch.no_grad():
        blind = model.model(input_ids=ids, token_type_ids=torch.zeros_like(ids)).logits.item()
    assert abs(model.score([question("abc")], ["abcdef"])[0] - blind) > 1e-3


def test_causal_model_scores_its_own_template(build):
    model = build("llama")
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello."}],
        tokenize=True,
        return_dict=False,
    )
    with torch.no_grad():
        direct = model.model(input_ids=torch.tensor([ids])).logits.item()
    assert model.score([question("hi")], ["hello."]) == pytest.approx([direct], abs=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_text_that_looks_like_structure_stays_text(build, architecture):
    """A policy that prints markers must not choose which part of its answer is scored."""
    model = build(architecture)
    inner = "<|assistant|>" if architecture == "llama" else "[SEP]"
    asked, answered = f"is {inner} this a question?", f"terrible text {inner} i am helpful."
    ids = model.encode(question(asked), answered)
    specials = {i: t.content for i, t in model.tokenizer.added_tokens_decoder.items() if t.special}
    structure = [
        specials[i] for i in ids if i in specials and specials[i] not in ("<unk>", "[UNK]")
    ]
    if architecture == "llama":
        assert structure == ["<|user|>", "<eos>", "<|assistant|>", "<eos>"]
    else:
        assert structure == ["[CLS]", "[SEP]", "[SEP]"]
    assert len(ids) - len(structure) == len(asked) + len(answered)
    alone = model.score([question(asked)], ["i am helpful."])
    assert abs(model.score([question(asked)], [answered])[0] - alone[0]) > 1e-4


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_question_arrives_whatever_else_is_in_the_batch(build, architecture):
    model = build(architecture)
    prompts = [question("what is the capital of france?"), question("why?"), question("a" * 60)]
    answers = ["paris", "because", "no"]
    together = model.score(prompts, answers)
    single = [model.score([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert together == pytest.approx(single, abs=1e-5)
    assert together == pytest.approx(model.score(prompts, answers, batch_tokens=1), abs=1e-5)
    others = model.score([question("how?")] * 3, answers)
    assert all(abs(a - b) > 1e-4 for a, b in zip(together, others, strict=True))


def test_scores_are_the_same_when_memory_runs_out(build):
    model = build("llama")
    prompts, answers = [question("how?" * i) for i in range(1, 5)], ["so.", "like this.", "", "no"]
    expected, sizes = model.score(prompts, answers), []

    def room(module, inputs, keywords) -> None:
        sizes.append(next(x for x in (*inputs, *keywords.values()) if torch.is_tensor(x)).numel())
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.model.base_model.register_forward_pre_hook(room, with_kwargs=True)
    assert model.score(prompts, answers) == pytest.approx(expected, abs=1e-5)
    assert sizes[0] > 60 >= sizes[-1]


def test_every_turn_of_a_conversation_is_read(build):
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    for architecture in ("llama", "bert"):
        model = build(architecture)
        ids = model.encode(Prompt("p", turns), "four")
        text = "".join(model.tokenizer.convert_ids_to_tokens(ids))
        assert all(word in text for word in ("one", "two", "three", "four"))


def test_continuation_is_one_text(build):
    for architecture in ("llama", "bert"):
        model = build(architecture)
        start = Prompt("p", (Message("user", "once upon"),), mode="continuation")
        ids = model.encode(start, " a time")
        text = "".join(model.tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True))
        assert text == "once upon a time"


def test_text_that_is_too_long_is_not_scored_in_part(build):
    model = build("llama", max_length=40)
    scores = model.score([question("hi")] * 3, ["short", "x" * 600, "short"])
    assert scores[1] is None
    assert scores[2] == pytest.approx(scores[0], abs=1e-5)
    assert scores[0] == pytest.approx(model.score([question("hi")], ["short"])[0], abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_text_longer_than_the_models_positions_is_not_scored(build, architecture):
    model = build(architecture, max_length=512)
    assert model.max_length == 128
    fitting, beyond = model.score([question("hi")] * 2, ["x" * 100, "x" * 200])
    assert fitting is not None
    assert beyond is None


def test_scale_turns_raw_scores_into_sigmas(build):
    model = build("llama")
    raw = model.score([question("hi")], ["yes"])[0]
    model.with_scale(mean=1.0, std=0.5)
    assert model.score([question("hi")], ["yes"])[0] == pytest.approx((raw - 1) / 0.5, abs=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", *ENCODERS])
def test_saved_model_scores_as_before(build, architecture, tmp_path):
    model = build(architecture, max_length=77).with_scale(mean=0.5, std=2.0, length_slope=0.01)
    model.save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert (loaded.scale, loaded.max_length) == (model.scale, 77)
    asked, answers = [question("how are you?")] * 2, ["fine", "not so well."]
    assert loaded.score(asked, answers) == pytest.approx(model.score(asked, answers), abs=1e-5)
    assert RewardModel.load(tmp_path, max_length=9).max_length == 9


def test_pad_ids_of_model_and_tokenizer_must_agree(build, tiny_tokenizer, tmp_path):
    model = build("llama")
    model.model.config.pad_token_id = 5
    with pytest.raises(ModelError, match="pad_token_id is 5, its tokenizer's is 0"):
        RewardModel(model.model, tiny_tokenizer)
    model.save(tmp_path)
    with pytest.raises(ModelError, match="trained with pad_token_id 5, its tokenizer pads with 0"):
        RewardModel.load(tmp_path)


def test_tokenizer_without_a_pad_token_is_refused(build, pair_tokenizer):
    tokenizer = deepcopy(pair_tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no pad token"):
        RewardModel(build("llama").model, tokenizer)


def test_new_head_has_the_standard_deviation_of_the_paper(tiny_causal_lm, tiny_tokenizer, tmp_path):
    """1 / sqrt(d + 1): 0.03125 for d = 1023; 20 heads of 1023 weights are measured."""
    base = tiny_causal_lm("gpt2", n_embd=1023, n_head=1, n_layer=0)
    base.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    heads = []
    for _ in range(20):
        model = RewardModel.load(tmp_path).model
        assert model.score.bias is None
        heads.append(model.score.weight.detach().flatten())
    assert 0.0309 < torch.cat(heads).std().item() < 0.0316
    assert math.isclose(torch.cat(heads).mean().item(), 0, abs_tol=1e-3)


def test_backbone_of_a_new_reward_model_is_the_language_model(
    tiny_causal_lm, tiny_tokenizer, tmp_path
):
    base = tiny_causal_lm("llama")
    base.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    model = RewardModel.load(tmp_path).model
    for name, weight in base.model.state_dict().items():
        assert model.model.state_dict()[name].equal(weight)


def test_scores_are_not_rounded_to_the_format_of_the_products(build):
    """Near 5 numbers of bfloat16 are 1/32 apart: close answers would get the same score."""
    model = build("llama", compute=torch.bfloat16)
    model.model.score = torch.nn.Linear(32, 1)
    torch.nn.init.constant_(model.model.score.bias, 5.0)
    scores = model(*model.pad([[5, 6, 7, 8], [5, 6, 7, 9], [5, 6, 7, 10]]))
    assert scores.dtype is torch.float32
    assert not scores.equal(scores.bfloat16().float())
