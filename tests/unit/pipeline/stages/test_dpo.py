"""Direct preference optimisation as a stage: what is read, left out, held out and saved."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tutelage.config import DPOStage, LoRAConfig
from tutelage.errors import DataError
from tutelage.pipeline.stages import dpo
from tutelage.tracking.metrics import MetricWriter


@pytest.fixture
def stage(tiny_recipe):
    """`stage(dpo={"loss": "ipo"})`: the tiny stage with these changes."""

    def build(**changes: Any) -> DPOStage:
        settings = {**tiny_recipe.stages["dpo"].model_dump(), **changes}
        return DPOStage.model_validate(settings)

    return build


@pytest.fixture
def preferences(write_rows):
    """Twelve preferences for whichever answer has more of the letter a."""
    rows = [
        {
            "id": str(i),
            "prompt": [{"role": "user", "content": f"say {i}"}],
            "chosen": f"{i} aaa",
            "rejected": f"{i} bbb",
        }
        for i in range(12)
    ]
    return lambda *more: write_rows("pairs.jsonl", [*rows, *more])


def row(i: int, chosen: str, rejected: str) -> Mapping[str, Any]:
    prompt = [{"role": "user", "content": f"say {i}"}]
    return {"id": str(i), "prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"smoothing": 0.1},
        {"loss": "hinge"},
        {"loss": "ipo"},
        {"reference": "none", "length_normalise": True, "beta": 2.0, "target_margin": 0.5},
    ],
)
def test_better_answers_become_more_likely_than_the_worse_ones(
    stage, preferences, context, read_rows, loss
):
    where = context()
    config = stage(preferences=[preferences()], epochs=4, held_out=0.2, dpo=loss)
    with MetricWriter.open(where.folder) as metrics:
        numbers = dpo.run(config, replace(where, metrics=metrics))
    rows = [row["metrics"] for row in read_rows(where.folder / "metrics.jsonl")]
    assert rows[-1]["dpo/margin"] > rows[0]["dpo/margin"]
    assert rows[-1]["dpo/loss"] < rows[0]["dpo/loss"]
    assert numbers["held_out_accuracy"] == 1
    assert numbers["pairs"] == 10
    assert ("held_out_kl" in numbers) == (loss.get("reference") != "none")


def test_model_is_saved_with_a_card(stage, preferences, context):
    where = context()
    config = stage(preferences=[preferences()])
    dpo.run(config, where)
    trained = AutoModelForCausalLM.from_pretrained(where.folder / "model").state_dict()
    start = AutoModelForCausalLM.from_pretrained(config.model).state_dict()
    assert any(not weight.equal(start[name]) for name, weight in trained.items())
    assert "beta 0.1" in (where.folder / "model" / "README.md").read_text()


def test_first_step_starts_at_the_reference_with_and_without_adapters(
    stage, preferences, context, read_rows
):
    """Where the reference is the model itself, the loss is log 2 and the divergence 0."""
    for lora in (None, LoRAConfig(rank=2, alpha=4)):
        torch.manual_seed(3)
        where = context()
        config = stage(preferences=[preferences()], lora=lora)
        with MetricWriter.open(where.folder) as metrics:
            dpo.run(config, replace(where, metrics=metrics))
        first = read_rows(where.folder / "metrics.jsonl")[0]["metrics"]
        assert first["dpo/loss"] == pytest.approx(0.693147, abs=1e-5)
        assert first["dpo/kl"] == pytest.approx(0, abs=1e-4)  # Sums of float32 over answers.


def test_same_text_twice_is_refused_with_its_line(stage, preferences, context):
    path = preferences(row(20, "same", " same "))
    with pytest.raises(DataError, match=r":13: chosen and rejected are the same text"):
        dpo.run(stage(preferences=[path]), context())


def test_too_long_and_equal_pairs_are_left_out(stage, preferences, context):
    """The tokenizer knows no capitals."""
    path = preferences(row(20, "yes " * 30, "no"), row(21, "Yes", "yes"))
    numbers = dpo.run(stage(preferences=[path], max_length=60, held_out=0.0), context())
    assert numbers == {"pairs": 12.0}


def test_nothing_to_learn_from_is_an_error(stage, preferences, write_rows, context):
    with pytest.raises(DataError, match=r"12 exceed 5 tokens .* raise max_length"):
        dpo.run(stage(preferences=[preferences()], max_length=5, held_out=0.0), context())
    one = write_rows("one.jsonl", [row(0, "a", "b")])
    with pytest.raises(DataError, match=r"none of 1 preferences is left .* lower held_out"):
        dpo.run(stage(preferences=[one]), context())


def test_all_pairs_of_a_prompt_are_held_out_together(stage, write_rows, context):
    rows = [row(i % 4, f"{i} a", f"{i} b") for i in range(12)]
    numbers = dpo.run(
        stage(preferences=[write_rows("p.jsonl", unique(rows))], held_out=0.25), context()
    )
    assert numbers["pairs"] == 9


def unique(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Judged rows with ids of their own, which name the prompt they share."""
    judged = {"p_a": 1.0, "annotator": "me"}
    return [
        {
            "id": f"c{i}",
            "prompt_id": each["id"],
            "prompt": each["prompt"],
            "a": each["chosen"],
            "b": each["rejected"],
            **judged,
        }
        for i, each in enumerate(rows)
    ]
