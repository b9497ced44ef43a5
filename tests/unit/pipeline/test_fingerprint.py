import copy
import hashlib
from dataclasses import replace

import pytest

from tutelage.config import EvaluateStage, LabelStage, RewardStage, SFTStage, TrainStage
from tutelage.errors import CheckpointError, DataError
from tutelage.feedback import Event, PreferenceStore
from tutelage.pipeline import References
from tutelage.pipeline.fingerprint import (
    STAGE_FORMAT,
    describe_stage,
    difference,
    stage_seed,
    without_new_defaults,
)
from tutelage.records import Comparison, Message, Preference, Prompt
from tutelage.tracking.fingerprint import fingerprint
from tutelage.tracking.stage import StageFolder, StageInfo


def sft(**settings) -> SFTStage:
    return SFTStage.model_validate({"model": "org/m", "data": ["org/d"], **settings})


@pytest.fixture
def identity():
    """The fingerprint of a stage on its own."""
    return lambda stage, seed=0: describe_stage(stage, seed, References()).fingerprint


def test_seed_of_a_stage_is_its_own_or_derived_from_name_and_recipe():
    digest = hashlib.sha256(b"7/sft").digest()
    assert stage_seed(sft(seed=3), "sft", 7) == 3
    assert stage_seed(sft(), "sft", 7) == int.from_bytes(digest[:4], "big") // 2
    assert stage_seed(sft(), "sft", 7) != stage_seed(sft(), "sft2", 7)


def test_same_stage_has_the_same_fingerprint(identity):
    assert identity(sft(epochs=2)) == identity(sft(epochs=2))


@pytest.mark.parametrize(
    "changed", [{"epochs": 2}, {"batch": {"minibatch": 32}}, {"model": "org/n"}, {"limit": 5}]
)
def test_every_setting_changes_the_fingerprint(identity, changed):
    assert identity(sft(**changed)) != identity(sft())


def test_seed_in_force_counts_and_not_where_it_comes_from(identity):
    assert identity(sft(seed=5), 5) == identity(sft(), 5)
    assert identity(sft(), 5) != identity(sft(), 6)


def test_content_of_a_file_counts_and_not_its_time(identity, tmp_path):
    file = tmp_path / "rows.jsonl"
    stage = sft(data=[str(file)])
    file.write_text("one")
    first = identity(stage)
    file.write_text("one")
    assert identity(stage) == first
    file.write_text("two")
    assert identity(stage) != first


def test_what_stands_in_a_store_counts_and_not_its_file(identity, tmp_path):
    prompt = Prompt("p", (Message("user", "Hi?"),))
    said = Preference(Comparison(prompt, "yes", "no", "p"), 1.0, "ann")
    phase = {"preferences": [str(tmp_path / "labels.db")]}
    stage = RewardStage.model_validate({"model": "org/m", "phases": [phase]})
    with PreferenceStore(tmp_path / "labels.db") as store:
        store.add([said])
        first = identity(stage)
        store.record(Event("p", "ann", "flagged"))
        assert identity(stage) == first
        # Not in the file yet: the log beside it holds it until the store is closed.
        store.record(Event("p", "ann", "withdrawn"))
        assert identity(stage) != first


def test_every_file_of_a_folder_counts(identity, tmp_path):
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    (model / "inner" / "weights").write_text("one")
    stage = sft(model=str(model))
    first = identity(stage)
    (model / "inner" / "weights").rename(model / "inner" / "other")
    second = identity(stage)
    (model / "inner" / "other").write_text("two")
    assert len({first, second, identity(stage)}) == 3


def test_finished_stage_elsewhere_must_be_undamaged(identity, tmp_path):
    with StageFolder.create(tmp_path, "base", StageInfo("sft", {}, "0", {}, 0)) as folder:
        (folder.path / "weights").write_text("one")
    stage = sft(model=str(folder.path))
    identity(stage)
    (folder.path / "weights").write_text("two")
    with pytest.raises(CheckpointError, match=r"weights is damaged"):
        identity(stage)


def test_code_of_reward_functions_counts(identity, tmp_path):
    code = tmp_path / "rewards.py"
    code.write_text("def polite(): ...")
    stage = TrainStage.model_validate(
        {"model": "org/m", "prompts": "org/p", "reward": {"functions": {f"{code}:polite": 1.0}}}
    )
    first = identity(stage)
    code.write_text("def polite(): return 1")
    assert identity(stage) != first
    code.unlink()
    with pytest.raises(DataError, match=r"reward\.functions names .*rewards\.py"):
        identity(stage)


def labelled(judge):
    return LabelStage(samples="org/s", feedback="judge", judge=judge)


def compared(judge):
    return EvaluateStage(models={"a": "org/m"}, baseline="a", prompts="org/p", win_rate=judge)


@pytest.mark.parametrize("stage", [labelled, compared])
def test_code_of_judges_counts(identity, tmp_path, stage):
    code = tmp_path / "judges.py"
    code.write_text("def prefers_a(): ...")
    first = identity(stage(f"{code}:prefers_a"))
    code.write_text("def prefers_a(): return 1")
    assert identity(stage(f"{code}:prefers_a")) != first


@pytest.mark.parametrize("stage", [labelled, compared])
def test_a_judges_file_counts_and_so_does_the_rubric_that_it_names(identity, tmp_path, stage):
    judge, rubric = tmp_path / "judge.yaml", tmp_path / "tone.txt"
    rubric.write_text("Kind answers are better.")
    judge.write_text("model: m\n")
    identities = [identity(stage(str(judge)))]
    judge.write_text(f"model: m\nrubric: {rubric}\n")
    identities.append(identity(stage(str(judge))))
    rubric.write_text("Short answers are better.")
    identities.append(identity(stage(str(judge))))
    assert len(set(identities)) == 3
    rubric.unlink()
    with pytest.raises(DataError, match=r"judge\.yaml: rubric names .*tone\.txt"):
        identity(stage(str(judge)))


def finished(stage, change):
    """What a version that wrote another configuration would have left of the same stage."""
    info = describe_stage(stage, 0, References())
    config = copy.deepcopy(dict(info.config))
    change(config)
    identity = {"format": STAGE_FORMAT, "kind": info.kind, "seed": 0, "inputs": info.inputs}
    identity["config"] = {key: value for key, value in config.items() if key != "seed"}
    return replace(info, config=config, fingerprint=fingerprint(identity))


def why(stage, change):
    """Why the stage is run again, empty where it is not."""
    before = finished(stage, change)
    info = describe_stage(stage, 0, References())
    return difference(before, without_new_defaults(info, stage, before))


REWARD = RewardStage.model_validate(
    {
        "model": "org/m",
        "phases": [{"preferences": ["org/p"], "optimizer": {"learning_rate": 3e-4}}],
    }
)


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        pytest.param(sft(), lambda config: None, id="nothing is new"),
        pytest.param(sft(), lambda config: config.pop("epochs"), id="a setting"),
        pytest.param(sft(), lambda config: config.pop("optimizer"), id="a whole section"),
        pytest.param(
            sft(batch={"minibatch": 32}),
            lambda config: config["batch"].pop("microbatch_tokens"),
            id="a setting of a section that is not at its default",
        ),
        pytest.param(
            sft(),
            lambda config: config["optimizer"].pop("learning_rate"),
            id="a setting whose default the stage sets",
        ),
        pytest.param(
            REWARD,
            lambda config: config["phases"][0]["optimizer"].pop("warmup"),
            id="a setting of a section in a list",
        ),
    ],
)
def test_a_key_that_came_later_and_is_at_its_default_changes_nothing(stage, change):
    assert why(stage, change) == ""


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        pytest.param(sft(epochs=7), lambda config: config.pop("epochs"), id="it is set"),
        pytest.param(
            sft(batch={"minibatch": 32}), lambda config: config.pop("batch"), id="set in a section"
        ),
        pytest.param(
            sft(optimizer={"learning_rate": 0.5}),
            lambda config: config["optimizer"].pop("learning_rate"),
            id="not what the stage sets",
        ),
        pytest.param(
            REWARD,
            lambda config: config["phases"][0]["optimizer"].pop("learning_rate"),
            id="set in a section in a list",
        ),
        pytest.param(sft(), lambda config: config.update(epochs=9), id="its default was another"),
        pytest.param(
            sft(), lambda config: config["optimizer"].update(warmup=0.9), id="so was one within"
        ),
        pytest.param(sft(), lambda config: config.update(gone=True), id="there was another key"),
        pytest.param(sft(), lambda config: config.pop("model"), id="there is no default"),
        pytest.param(REWARD, lambda config: config.update(phases=[]), id="a list was shorter"),
    ],
)
def test_every_other_difference_counts(stage, change):
    assert why(stage, change) != ""


def test_a_new_default_hides_no_other_difference():
    stage = sft(epochs=2)
    before = finished(stage, lambda config: (config.pop("limit"), config.update(epochs=1)))
    info = describe_stage(stage, 0, References())
    known = without_new_defaults(info, stage, before)
    assert difference(before, known) == "epochs changed in its configuration"
    assert difference(replace(before, inputs={"org/d": "x"}), known)
    assert difference(before, replace(known, seed=1, fingerprint="other"))
