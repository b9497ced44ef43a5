import hashlib

import pytest

from tutelage.config import SFTStage, TrainStage
from tutelage.errors import CheckpointError, DataError
from tutelage.pipeline import References
from tutelage.pipeline.fingerprint import describe_stage, stage_seed
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
