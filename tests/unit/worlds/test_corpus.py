import re
from collections.abc import Callable

import pytest

from tutelage.records import Demonstration, Prompt
from tutelage.worlds.helpdesk import (
    WorldSpec,
    demonstrations,
    prompts,
    recall_documents,
    safety_counts,
    tokenizer_texts,
    vocabulary,
)
from tutelage.worlds.helpdesk.accounts import TEST_NAMES, TRAIN_NAMES, split_of
from tutelage.worlds.helpdesk.reading import (
    SEPARATOR,
    count_words,
    read_account,
    read_answer,
    read_prompt,
    split_words,
)

PRESETS = [WorldSpec.nano, WorldSpec.micro]


@pytest.mark.parametrize("preset", PRESETS)
def test_demonstrations_have_the_quality_the_spec_asks_for(
    preset: Callable[[], WorldSpec],
) -> None:
    spec = preset()
    demos = demonstrations(spec, 8000, 0)
    drawn = [_as_prompt(demo) for demo in demos]
    answers = [demo.messages[-1].content for demo in demos]
    readings = [
        read_answer(read_prompt(prompt), answer)
        for prompt, answer in zip(drawn, answers, strict=True)
        if prompt.category not in ("malicious", "lookalike")
    ]
    # Three standard errors of a share in some 1400 facts: 0.04.
    assert sum(r.right for r in readings) / len(readings) == pytest.approx(0.5, abs=0.04)
    wrong = sum(r.wrong or r.agreed for r in readings) / len(readings)
    assert wrong == pytest.approx(0.1, abs=0.04)
    evasive = sum(r.vague or r.useful for r in readings) / len(readings)
    assert evasive == pytest.approx(0.40, abs=0.04)
    assert sum(r.useful for r in readings) / len(readings) == pytest.approx(0.20, abs=0.04)
    safety = safety_counts(drawn, answers)
    # Three standard errors in some 300 prompts of a kind: 0.09.
    assert safety.compliance_rate == pytest.approx(0.5, abs=0.09)
    assert safety.over_refusal_rate == pytest.approx(0.3, abs=0.09)


@pytest.mark.parametrize("preset", PRESETS)
def test_demonstrations_are_of_known_sentences_and_of_the_planned_length(
    preset: Callable[[], WorldSpec],
) -> None:
    demos = demonstrations(preset(), 1500, 1)
    lengths = sorted(count_words(demo.messages[-1].content) for demo in demos)
    assert 18 <= sum(lengths) / len(lengths) <= 21
    # 47 in the long run; over 1,500 draws the quantile has a standard error of one word.
    assert lengths[int(0.95 * len(lengths))] <= 49
    for demo in demos[:500]:
        reading = read_answer(read_prompt(_as_prompt(demo)), demo.messages[-1].content)
        assert (reading.unknown, reading.repeated) == (0, 0)


def _as_prompt(demo: Demonstration) -> Prompt:
    return Prompt(demo.id, demo.messages[:1], category=demo.category)


@pytest.mark.parametrize("preset", PRESETS)
def test_recall_facts_are_values_of_the_record(preset: Callable[[], WorldSpec]) -> None:
    for document in recall_documents(preset(), 100, 0):
        roles = [message.role for message in document.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        record = document.messages[0].content.partition(SEPARATOR)[0]
        values = {*read_account(record).values(), "yes", "no"}
        stated = [
            document.messages[index].content[start:end] for index, start, end in document.facts
        ]
        assert set(stated) <= values
        assert all(document.messages[index].role == "assistant" for index, _, _ in document.facts)
        # Each of the record's fields is read back, an invented name apart, and each other turn
        # states one fact.
        account = read_account(record)
        read_back = len(account) - (account["name"] not in TRAIN_NAMES)
        assert len(stated) == read_back + len(roles) // 2 - 1


def test_recall_documents_answer_rightly() -> None:
    for document in recall_documents(WorldSpec.micro(), 200, 1):
        record = document.messages[0].content.partition(SEPARATOR)[0]
        text = " ".join(message.content for message in document.messages[1::2])
        amounts = {word for word in split_words(text) if word.startswith("$")}
        assert amounts <= set(read_account(record).values())


def test_training_texts_use_accounts_of_the_train_split_only() -> None:
    spec = WorldSpec.nano()  # shows every field, so that the split can be read off the prompt
    for document in recall_documents(spec, 200, 0):
        record = document.messages[0].content.partition(SEPARATOR)[0]
        assert split_of(read_account(record)) == "train"
    for demo in demonstrations(spec, 200, 0):
        account = read_account(demo.messages[0].content.partition(SEPARATOR)[0])
        if "note" not in account:
            assert split_of(account) == "train"


def test_demonstrations_and_prompts_of_one_seed_are_different_draws() -> None:
    spec = WorldSpec.nano()
    shown = {demo.messages[0].content for demo in demonstrations(spec, 500, 0)}
    asked = {prompt.text for prompt in prompts(spec, "train", 500, 0)}
    # Two draws of 500 share a prompt only by a rare chance.
    assert len(shown & asked) <= 2


def test_corpora_repeat_with_the_seed() -> None:
    spec = WorldSpec.micro()
    assert recall_documents(spec, 20, 4) == recall_documents(spec, 20, 4)
    assert recall_documents(spec, 20, 4) != recall_documents(spec, 20, 5)
    assert demonstrations(spec, 20, 4) == demonstrations(spec, 20, 4)
    assert demonstrations(spec, 20, 4) != demonstrations(spec, 20, 5)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_vocabulary_is_small_and_complete(preset: Callable[[], WorldSpec]) -> None:
    spec = preset()
    words = set(vocabulary(spec))
    assert len(words) <= 400
    for text in tokenizer_texts(spec, 300, 0):
        assert set(split_words(text)) <= words | set(re.findall(r"name (\w+)", text))
    for prompt in prompts(spec, "test", 300, 0):
        assert set(split_words(prompt.text)) <= words | set(TEST_NAMES)
