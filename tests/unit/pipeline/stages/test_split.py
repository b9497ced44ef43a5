import pytest
from pydantic import ValidationError

from tutelage.config import SplitStage
from tutelage.errors import DataError
from tutelage.pipeline.stages.split import run


@pytest.fixture
def split(write_rows, context, read_rows):
    """Runs the stage on rows; returns the rows of each part."""

    def go(rows, *, seed=0, **shares):
        place = context(seed)
        run(SplitStage(data=(write_rows("rows.jsonl", rows),), parts=shares), place)
        return {name: read_rows(place.folder / f"{name}.jsonl") for name in shares}

    return go


def texts(count):
    return [{"id": str(i), "text": f"text number {i}"} for i in range(count)]


def dialogue(name, *turns):
    roles = ("user", "assistant") * len(turns)
    said = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return {"id": name, "prompt": said, "chosen": "yes", "rejected": "no"}


def test_parts_have_their_shares(split):
    parts = split(texts(100), a=0.5, b=0.3, c=0.2)
    assert {name: len(rows) for name, rows in parts.items()} == {"a": 50, "b": 30, "c": 20}


def test_every_row_is_in_one_part_and_unchanged(split):
    rows = texts(40)
    parts = split(rows, a=0.25, b=0.75)
    assert sorted(parts["a"] + parts["b"], key=lambda row: int(row["id"])) == rows


def test_shares_below_one_leave_rows_out(split):
    parts = split(texts(100), a=0.1, b=0.2)
    assert (len(parts["a"]), len(parts["b"])) == (10, 20)


def test_dialogues_that_begin_alike_stay_together(split):
    rows = [
        dialogue(f"{i}-{j}", f"Question {i}?", *["yes", "go on"] * j)
        for i in range(30)
        for j in range(3)
    ]
    parts = split(rows, a=0.5, b=0.5)
    first = [{row["id"].split("-")[0] for row in part} for part in parts.values()]
    assert first[0].isdisjoint(first[1])
    assert sum(map(len, parts.values())) == 90


def test_equal_texts_stay_together_whatever_their_case_and_blanks(split):
    rows = [
        {"id": f"{i}{form}", "text": f"{form} {i}"} for i in range(20) for form in ("Text", "text ")
    ]
    parts = split(rows, a=0.5, b=0.5)
    numbers = [{row["text"].split()[1] for row in part} for part in parts.values()]
    assert numbers[0].isdisjoint(numbers[1])


def test_system_message_is_not_the_beginning(split):
    system = {"role": "system", "content": "Be brief."}
    rows = [dialogue(str(i), f"Question {i}?") for i in range(20)]
    for row in rows:
        row["prompt"].insert(0, system)
    assert all(split(rows, a=0.5, b=0.5).values())


def test_seed_decides_the_parts(split):
    first, again, other = (split(texts(30), seed=seed, a=0.5, b=0.5) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_shares_above_one_are_refused():
    with pytest.raises(ValidationError, match=r"add up to 1\.2, 1 at most"):
        SplitStage(data=("rows.jsonl",), parts={"a": 0.7, "b": 0.5})


@pytest.mark.parametrize("name", ["../a", "A", "", "a.b"])
def test_part_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(ValidationError, match="match pattern"):
        SplitStage(data=("rows.jsonl",), parts={name: 0.5})


def test_too_few_rows_are_refused(split):
    with pytest.raises(DataError, match=r"1 rows .* too few for 2 parts: a would be empty"):
        split(texts(1), a=0.5, b=0.5)


def test_row_without_text_or_conversation_is_named(split):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the row has no text"):
        split([{"id": "1", "text": "t"}, {"id": "2"}], a=1.0)
