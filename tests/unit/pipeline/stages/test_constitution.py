"""Revising and preferring as stages: what they write and count, and going on after a kill."""

import hashlib
import json
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.config import CheckpointConfig, PreferStage, ReviseStage
from tutelage.data.loaders import load_demonstrations, load_preferences
from tutelage.errors import ConfigError, DataError, GenerationError
from tutelage.judging.constitution import Transcript, load_constitution
from tutelage.judging.fake import FakeEndpoint, Spoken
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages import prefer, revise
from tutelage.tracking.progress import NullProgress

RECORD = "name ana; plan basic; bill $47; due may 17; data 32gb; fee roaming"
GOOD = "your bill is $47. have a great day."
BAD = "your bill is $51. our help line is open all week."
DESK = "customer-service"


def samples(*answers, prompts=6, **changes):
    return [
        {
            "id": f"q{i}",
            "prompt": [{"role": "user", "content": f"{RECORD} | what is my bill this month?"}],
            "category": "amount",
            "completions": list(answers),
            **changes,
        }
        for i in range(prompts)
    ]


def revise_stage(where: str, **changes) -> ReviseStage:
    given = {"constitution": DESK, "writer": "helpdesk", "samples": where, "rounds": 12}
    return ReviseStage(**{**given, **changes})


def prefer_stage(where: str | None, **changes) -> PreferStage:
    given = {"constitution": DESK, "writer": "helpdesk", "samples": where}
    return PreferStage(**{**given, **changes})


def transcripts(folder: Path) -> list[Transcript]:
    lines = (folder / "transcripts.jsonl").read_text().splitlines()
    return [Transcript.from_json(json.loads(line)) for line in lines]


# Revising


def test_revised_answers_become_demonstrations(write_rows, context, read_rows):
    where = context()
    numbers = revise.run(revise_stage(write_rows("s.jsonl", samples(BAD))), where)
    shown = load_demonstrations(where.folder / "sft.jsonl")
    assert [row.id for row in shown] == [f"q{i}" for i in range(6)]
    for row in shown:
        text = row.messages[-1].content
        assert "$47" in text
        assert "$51" not in text
        assert "help line" not in text
    assert numbers["demonstrations"] == 6
    assert numbers["failed"] == 0
    assert numbers["changed"] == 1.0
    assert numbers["words_before"] == len(BAD.split())


def test_every_row_says_where_it_comes_from(write_rows, context, read_rows):
    where = context()
    revise.run(revise_stage(write_rows("s.jsonl", samples(BAD)), rounds=3), where)
    found = load_constitution(DESK)
    rows = read_rows(where.folder / "sft.jsonl")
    for row, transcript in zip(rows, transcripts(where.folder), strict=True):
        assert row["constitution_sha256"] == found.sha256
        assert row["constitution"] == found.name
        assert row["writer"] == "helpdesk-rules"
        assert row["principles"] == [each.principle for each in transcript.revisions]
        assert len(set(row["principles"])) == 3
        assert row["messages"][-1]["content"] == transcript.text
    record = json.loads((where.folder / "revisions.json").read_text())
    assert record["constitution_sha256"] == found.sha256
    assert sum(each["asked"] for each in record["principles"].values()) == 18


def test_file_of_the_users_is_a_constitution(write_rows, context, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nprinciples:\n- {id: only, category: relevance, critique: Which are beside the "
        "point?, revision: Leave them out., question: Which has fewer?}\n"
    )
    where = context()
    stage = revise_stage(write_rows("s.jsonl", samples(BAD)), constitution=str(path), rounds=1)
    assert str(path) in stage.references()
    revise.run(stage, where)
    shown = load_demonstrations(where.folder / "sft.jsonl")
    assert {row.messages[-1].content for row in shown} == {"your bill is $51."}
    record = json.loads((where.folder / "revisions.json").read_text())
    assert record["constitution_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_empty_answers_fail_and_are_counted(write_rows, context):
    rows = samples(GOOD)
    rows[2]["completions"] = [" "]
    where = context()
    numbers = revise.run(revise_stage(write_rows("s.jsonl", rows)), where)
    assert (numbers["demonstrations"], numbers["failed"]) == (5, 1)
    assert [row.id for row in load_demonstrations(where.folder / "sft.jsonl")] == [
        "q0", "q1", "q3", "q4", "q5",
    ]  # fmt: skip
    assert [row.failure for row in transcripts(where.folder)].count("") == 5


def test_too_many_failures_end_the_stage_with_reasons(write_rows, context):
    rows = samples(GOOD)
    for row in rows[:3]:
        row["completions"] = [""]
    stage = revise_stage(write_rows("s.jsonl", rows), max_failed_share=0.4)
    with pytest.raises(GenerationError, match=r"3 of 6 failed(.|\n)*q0: first answer: nothing"):
        revise.run(stage, context())


def test_a_writer_behind_an_endpoint_is_closed_at_the_end(write_rows, context, tmp_path):
    """However the stage ends: no thread keeps asking, no file of replies stays open."""
    pytest.importorskip("openai")
    before = threading.enumerate()
    for said, fails in (("your bill is $47.", False), ("your\x07bill", True)):
        with FakeEndpoint(lambda body, said=said: Spoken(said)) as endpoint:
            stage = revise_stage(
                write_rows("s.jsonl", samples(BAD, prompts=1)),
                writer="endpoint",
                endpoint={"model": "fake", "url": endpoint.url, "retries": 0},
            )
            expected = pytest.raises(GenerationError) if fails else nullcontext()
            with expected:
                revise.run(stage, replace(context(), replies=tmp_path / f"{fails}.sqlite"))
            assert endpoint.bodies
        assert threading.enumerate() == before


def test_texts_to_be_continued_are_refused(write_rows, context):
    stage = revise_stage(write_rows("s.jsonl", samples(GOOD, mode="continuation")))
    with pytest.raises(DataError, match="'q0' is a text to be continued"):
        revise.run(stage, context())


def test_model_answers_criticises_and_revises(tiny_recipe, write_rows, context, tmp_path):
    """A random model: what it writes means nothing, but most of it ends in no sentence."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "name: short\nprinciples:\n- {id: only, critique: a?, revision: b., question: c?}\n"
    )
    rows = samples(GOOD, prompts=48)
    for row in rows:
        row["prompt"] = [{"role": "user", "content": row["id"]}]
        del row["completions"]
    stage = ReviseStage(
        constitution=str(path),
        prompts=write_rows("p.jsonl", rows),
        model=tiny_recipe.stages["sft"].model,
        rounds=1,
        sampling={"max_tokens": 30},
        max_prompt_tokens=98,
        max_failed_share=1.0,
    )
    where = context()
    numbers = revise.run(stage, where)
    found = transcripts(where.folder)
    assert [row.prompt.id for row in found] == [f"q{i}" for i in range(48)]
    finished = [row for row in found if not row.failure]
    assert 0 < len(finished) == numbers["demonstrations"] < 48
    assert all(len(row.revisions) == 1 and row.answer for row in finished)
    reasons = {row.failure.partition(": ")[2] for row in found if row.failure}
    assert "cut off at 30 tokens" in reasons
    kinds = {row.failure.split()[0] for row in found if row.failure}
    assert kinds == {"first", "critique", "revision"}


# Going on


class Killed(Exception):
    pass


class Fragile(NullProgress):
    """Dies when so many prompts are done."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, step, total=None, metrics=None):
        if step >= self.at:
            raise Killed


def run_with_checkpoints(module, stage, base: StageContext, place, folder, at=10**9):
    folder.mkdir()
    config = CheckpointConfig(seconds=0)
    about = {"threads": 1, "versions": {}, "stage": {}}
    checkpoints = Checkpoints(CheckpointPlace(place, about, config), folder, NullProgress())
    context = StageContext(
        name="stage",
        folder=folder,
        seed=0,
        threads=1,
        progress=Fragile(at),
        metrics=base.metrics,
        references=base.references,
        checkpoints=checkpoints,
    )
    numbers = module.run(stage, context)
    return numbers, checkpoints.resumed_at


@pytest.mark.parametrize("name", ["revise", "prefer"])
def test_stage_goes_on_and_ends_as_if_it_had_never_stopped(name, write_rows, context, tmp_path):
    module, make = {"revise": (revise, revise_stage), "prefer": (prefer, prefer_stage)}[name]
    where = write_rows("s.jsonl", samples(BAD, GOOD, "you owe $51 this month.", prompts=9))
    stage = make(where, batch=2)
    whole = context()
    numbers = module.run(stage, whole)
    place = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        run_with_checkpoints(module, stage, whole, place, tmp_path / "first", at=5)
    again, resumed = run_with_checkpoints(module, stage, whole, place, tmp_path / "second")
    assert resumed == 4
    assert again == numbers
    for path in whole.folder.iterdir():
        assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes(), path.name


# Preferring


def test_better_answers_are_preferred_under_all_principles(write_rows, context):
    where = context()
    stage = prefer_stage(write_rows("s.jsonl", samples(BAD, GOOD)), principles=None)
    numbers = prefer.run(stage, where)
    rows = load_preferences(where.folder / "preferences.jsonl")
    assert len(rows) == numbers["preferences"] == 6
    for row in rows:
        right = row.p_a if row.comparison.a == GOOD else 1 - row.p_a
        # Accuracy, answering, relevance and courtesy tell them apart, all for the right answer.
        assert right == 1.0
        assert [value for value in row.criteria.values() if value != 0.5] == [row.p_a] * 4
        assert len(row.criteria) == 12
        assert row.orders == pytest.approx((row.p_a, row.p_a))
        assert row.instructions == load_constitution(DESK).sha256
        assert row.annotator == "helpdesk-rules with customer service"
    assert {row.comparison.a for row in rows} == {GOOD, BAD}
    assert (numbers["unscorable"], numbers["ties"], numbers["order_mattered"]) == (0, 0, 0)
    record = json.loads((where.folder / "principles.json").read_text())
    assert record["by_principle"]["correct-value"] == {"asked": 6, "decided": 1.0}
    assert record["by_principle"]["next-step"] == {"asked": 6, "decided": 0.0}


def test_judge_without_verdicts_ends_the_stage(tiny_recipe, write_rows, context):
    """The questions are too long for the model: that is no preference, and no tie."""
    rows = samples("yes.", "no.", prompts=4)
    for row in rows:
        row["prompt"] = [{"role": "user", "content": "hi"}]
    stage = PreferStage(
        constitution=DESK,
        samples=write_rows("s.jsonl", rows),
        model=tiny_recipe.stages["sft"].model,
        principles=1,
        sampling={"max_tokens": 4},
        max_prompt_tokens=100,
    )
    with pytest.raises(
        GenerationError, match=r"4 of 4 failed(.|\n)*q0/0-1: no principle gave a readable verdict"
    ):
        prefer.run(stage, context())


def test_samples_without_pairs_are_refused(write_rows, context):
    with pytest.raises(DataError, match="give no pair of different completions"):
        prefer.run(prefer_stage(write_rows("s.jsonl", samples(GOOD))), context())


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writer": "model"}, "writer is 'model' and model is missing"),
        ({"model": "m"}, "writer is 'helpdesk' and model is given"),
        ({"writer": "endpoint"}, "writer is 'endpoint' and endpoint is missing"),
        ({"prompts": "p.jsonl"}, "both of samples and prompts"),
        ({"samples": None}, "neither of samples and prompts"),
        ({"samples": None, "prompts": "p.jsonl"}, "rules revise answers and write none"),
        ({"sampling": {"samples_per_prompt": 2}}, "one text at a time"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        revise_stage("s.jsonl", **changes)


def test_preferences_need_samples():
    with pytest.raises(ValueError, match="samples is missing"):
        prefer_stage(None)


def test_constitution_that_does_not_exist_is_named(write_rows, context):
    with pytest.raises(ConfigError, match="no constitution is called 'desk'"):
        revise.run(
            revise_stage(write_rows("s.jsonl", samples(GOOD)), constitution="desk"), context()
        )
