"""A judge model in this process, held against the model itself."""

import asyncio

import pytest
import torch

from tutelage.errors import ModelError
from tutelage.judging import Asker, JudgeSettings, ModelJudge, Rubric
from tutelage.judging.local import LocalModel, label_masses
from tutelage.judging.reply import AskError, JudgeRequest
from tutelage.records import Comparison, Message, Prompt

RUBRIC = Rubric("short", "brief")
PROMPT = Prompt("p", (Message("user", "how much is it?"),))
MESSAGES = (Message("user", "which is better, a or b?"),)


@pytest.fixture
def folder(tiny_tokenizer, tiny_causal_lm, tmp_path):
    model = tiny_causal_lm(max_position_embeddings=4096)
    model.save_pretrained(tmp_path / "tiny")
    tiny_tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def ask(model: LocalModel, **options):
    request = JudgeRequest(
        **{"messages": MESSAGES, "labels": ("A", "B"), "max_tokens": 8} | options
    )
    return asyncio.run(model.ask(request))


def chain(model: LocalModel, text: str) -> float:
    """P(text | question), a token at a time by the model itself."""
    ids = model.codec.prompt(MESSAGES)
    probability = 1.0
    for token in model.codec.plain(text):
        with torch.no_grad():
            logits = model.model(torch.tensor([ids])).logits[0, -1]
        probability *= float(logits.softmax(-1)[token])
        ids = [*ids, token]
    return probability


def test_labels_have_the_probability_that_the_model_gives_them(folder):
    model = LocalModel(folder)
    (token,) = ask(model).tokens
    for label in ("A", "B"):
        expected = chain(model, label) + chain(model, f" {label}")
        assert token.likeliest[label] == pytest.approx(expected, rel=1e-4)


def test_one_is_what_does_not_go_on_to_ten(folder):
    model = LocalModel(folder)
    (token,) = ask(model, labels=("1", "10")).tokens
    ten = chain(model, "10") + chain(model, " 10")
    one = chain(model, "1") + chain(model, " 1") - ten
    assert token.likeliest == pytest.approx({"1": one, "10": ten}, rel=1e-4)


def test_masses_of_longer_labels_are_taken_off_the_shorter_ones():
    spellings = {"1": {(7,)}, "10": {(7, 3)}, "2": {(8,)}}
    masses = label_masses(spellings, {(7,): 0.5, (7, 3): 0.2, (8,): 0.25})
    assert masses == pytest.approx({"1": 0.3, "10": 0.2, "2": 0.25})


def test_model_that_would_say_something_else_is_unreadable(folder):
    comparison = Comparison(PROMPT, "five", "six", "c")
    with ModelJudge(Asker(LocalModel(folder)), RUBRIC) as judge:
        # Random weights spread over 64 characters: the letters have a few per cent of it.
        assert judge([comparison]) == [None]
        assert judge.parse_rate == 0.0
    with ModelJudge(Asker(LocalModel(folder)), RUBRIC, JudgeSettings(min_mass=0.0)) as judge:
        (p_a,) = judge([comparison])
        assert judge([comparison.swap()]) == [pytest.approx(1.0 - p_a)]


def test_reasons_are_written_greedily(folder):
    model = LocalModel(folder)
    reply = ask(model, labels=(), max_tokens=5)
    ids = model.codec.prompt(MESSAGES)
    for _ in range(5):
        with torch.no_grad():
            ids = [*ids, int(model.model(torch.tensor([ids])).logits[0, -1].argmax())]
            if ids[-1] in model.codec.stops.values():
                break
    written = ids[len(model.codec.prompt(MESSAGES)) :]
    assert reply.text == model.codec.tokenizer.decode(written, skip_special_tokens=True)
    assert reply.completion_tokens == len(written)


def test_question_beyond_the_context_is_refused_alone(folder):
    model = LocalModel(folder)
    with pytest.raises(AskError, match=r"tokens.*the model reads 4096"):
        ask(model, messages=(Message("user", "a" * 5000),))


def test_identity_is_of_the_files(folder, tiny_tokenizer, tiny_causal_lm, tmp_path):
    first = LocalModel(folder).identity
    assert LocalModel(folder).identity == first
    tiny_causal_lm(seed=1, max_position_embeddings=4096).save_pretrained(folder)
    assert LocalModel(folder).identity != first
    assert LocalModel(folder).name == "tiny"


def test_folder_without_a_chat_template_is_refused(folder, pair_tokenizer):
    pair_tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no chat template"):
        LocalModel(folder)
