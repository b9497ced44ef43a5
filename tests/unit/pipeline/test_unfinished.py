"""A stage that was begun before: goes on, is refused with the difference, or begins anew."""

import json

import pytest

from tutelage.config import CheckpointConfig, SFTStage, TrainStage
from tutelage.errors import ConfigError, TrainingError
from tutelage.pipeline import run_recipe
from tutelage.pipeline.unfinished import (
    FREE_KEYS,
    ROUNDING_KEYS,
    changed_settings,
    stage_checkpoints,
)
from tutelage.tracking.manifest import load_manifest
from tutelage.tracking.stage import StageInfo


@pytest.fixture
def run(tmp_path, registry):
    """Runs a recipe that saves itself at every boundary; returns the manifest of stage a."""

    def go(recipe, **options):
        often = recipe.model_copy(update={"checkpoint": CheckpointConfig(seconds=0)})
        result = run_recipe(often, tmp_path / "run", registry=registry, **options)
        return load_manifest(result.stage("a"))

    return go


@pytest.fixture
def failed(run, recipe):
    """A run whose stage has failed after three of four steps."""
    with pytest.raises(TrainingError, match="interrupted"):
        run(recipe(a="weights"))


def test_changed_setting_is_refused_with_key_old_and_new(failed, run, recipe, tmp_path):
    changed = {"epochs": 2.0, "optimizer": {"learning_rate": 0.5}, "model": "org/weights"}
    with pytest.raises(ConfigError) as caught:
        run(recipe(a=changed))
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "stage a has saved itself at step 3 with other settings:\n"
        "  epochs: 1.0 -> 2.0\n"
        "  optimizer.learning_rate: 2e-05 -> 0.5\n"
        "Set them back to go on. `tutelage run` begins it anew with --force a, and from the "
        "weights saved there with --weights-only a; deleting "
        f"{tmp_path / 'run' / 'checkpoints' / 'a'} begins anew too"
    )
    # Nothing is lost by the attempt.
    assert run(recipe(a="weights")).metrics["began"] == 3


def test_changed_seed_and_changed_data_are_refused(failed, run, recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"\n  seed: \d+ -> 7\n"):
        run(recipe(a={"model": "org/weights", "seed": 7}))
    (tmp_path / "text.txt").write_text("other")
    with pytest.raises(
        ConfigError, match=r"\n  content of inputs/text: [0-9a-f]{12} -> [0-9a-f]{12}\nSet"
    ):
        run(recipe(a="weights"))


def test_force_begins_anew_and_keeps_the_old_checkpoints_until_the_end(
    failed, run, recipe, tmp_path, capsys
):
    other = {"model": "org/weights", "epochs": 2.0}
    (tmp_path / "mark").unlink()
    with pytest.raises(TrainingError):
        run(recipe(a=other), force=["a"])
    assert "[a] begins anew, not from step 3: forced" in capsys.readouterr().out
    assert len(list((tmp_path / "run" / "checkpoints" / "a").iterdir())) == 2
    # Interrupted again, the forced stage goes on; it does not begin anew for ever.
    assert run(recipe(a=other), force=["a"]).metrics["began"] == 3
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_keys_outside_the_stage_may_change(failed, run, recipe, capsys):
    changed = recipe(a="weights").model_copy(
        update={"threads": 1, "parallel": 1, "description": "another", "stall_timeout": 5000.0}
    )
    assert run(changed).metrics["began"] == 3
    assert "threads were 2 when it was saved and are 1 now" in capsys.readouterr().out


def test_smaller_microbatches_may_be_tried_after_memory_ran_out(failed, run, recipe, capsys):
    smaller = {"model": "org/weights", "batch": {"microbatch_tokens": 1024}}
    manifest = run(recipe(a=smaller))
    assert manifest.metrics["began"] == 3
    assert manifest.config["batch"]["microbatch_tokens"] == 1024
    said = capsys.readouterr().out
    assert "batch.microbatch_tokens were 16384 when it was saved and are 1024 now" in said


def info(stage, **changes):
    return StageInfo(
        **{
            "kind": stage.kind,
            "config": stage.to_json(),
            "fingerprint": "x",
            "inputs": {"data": "1"},
            "seed": 3,
            **changes,
        }
    )


TRAIN = {"model": "m", "reward": {"model": "r"}, "prompts": "p"}


@pytest.mark.parametrize(
    ("same", "stage", "changes"),
    [
        (True, TrainStage(**TRAIN, log_samples=50), {}),
        (True, TrainStage(**TRAIN, ppo={"batch": {"microbatch_tokens": 5}}), {}),
        # The seed in force is what counts, and not whether it was written down.
        (True, TrainStage(**TRAIN, seed=3), {}),
        (True, TrainStage(**TRAIN), {"fingerprint": "y"}),
        (False, TrainStage(**TRAIN, ppo={"batch": {"minibatch": 5}}), {}),
        (False, TrainStage(**TRAIN, ppo={"steps": 5}), {}),
        (False, TrainStage(**TRAIN, limit=5), {}),
        (False, TrainStage(**TRAIN), {"seed": 4}),
        (False, TrainStage(**TRAIN), {"inputs": {"data": "2"}}),
    ],
)
def test_only_listed_settings_leave_a_stage_the_same(tmp_path, same, stage, changes):
    one = stage_checkpoints(tmp_path, "a", info(TrainStage(**TRAIN)))
    other = stage_checkpoints(tmp_path, "a", info(stage, **changes))
    assert (one == other) is same


def test_listed_settings_exist():
    known = set()
    for stage in (TrainStage(**TRAIN), SFTStage(model="m", data=("d",))):
        known |= changed_settings({}, stage.to_json()).keys()
    assert {*FREE_KEYS, *ROUNDING_KEYS} <= known


def test_difference_speaks_of_values_by_their_dotted_keys():
    before = {"a": 1, "b": {"c": [1, 2], "d": []}, "gone": None}
    now = {"a": 1, "b": {"c": [1, 3, 4], "d": {}}, "new": {"e": 5}}
    assert changed_settings(before, now) == {
        "b.c.1": (2, 3),
        "b.c.2": ("absent", 4),
        "b.d": ([], {}),
        "new.e": ("absent", 5),
        "gone": (None, "absent"),
    }


def test_weights_only_starts_from_the_weights_with_a_new_optimiser(
    failed, run, recipe, tmp_path, capsys
):
    other = {"model": "org/weights", "epochs": 2.0}
    manifest = run(recipe(a=other), weights_only=["a"])
    # Three steps were taken before, four now: each adds 1 to the weights, and the optimiser
    # remembers 1 + 2 + 3 + 4 of this process.
    assert manifest.metrics["began"] == 0
    assert manifest.metrics["weight"] == 7
    assert manifest.metrics["remembered"] == 10
    said = capsys.readouterr().out
    assert "00000003 (layer) and nothing else" in said
    # It is another stage than one without, and finished all the same.
    assert "weights of a checkpoint" in manifest.inputs
    again = run_and_name_skipped(run, recipe(a=other), capsys)
    assert again == ["a"]


def run_and_name_skipped(run, recipe, capsys):
    run(recipe)
    lines = capsys.readouterr().out.splitlines()
    return [line[1:2] for line in lines if line.endswith("finished before, skipped")]


def test_stage_begun_from_weights_goes_on_from_its_own_checkpoints(failed, run, recipe, tmp_path):
    (tmp_path / "mark").unlink()
    other = {"model": "org/weights", "epochs": 2.0}
    with pytest.raises(TrainingError):
        run(recipe(a=other), weights_only=["a"])
    # Asked for again or not, what was begun from weights goes on.
    (tmp_path / "mark").touch()
    manifest = run(recipe(a=other))
    assert (manifest.metrics["began"], manifest.metrics["weight"]) == (3, 7)


def test_weights_only_works_where_the_optimiser_is_missing(failed, run, recipe, tmp_path):
    """What a lost part of the state makes useless for going on still has weights in it."""
    from tutelage.tracking.checkpoint import CheckpointStore

    (folder,) = (tmp_path / "run" / "checkpoints" / "a").iterdir()
    store = CheckpointStore(folder)
    found = store.latest()
    state = json.loads((found.path / "state.json").read_text())
    del state["optimiser"]
    tensors = (found.path / "tensors.safetensors").read_bytes()

    def write(place):
        (place / "state.json").write_text(json.dumps(state))
        (place / "tensors.safetensors").write_bytes(tensors)
        (place / "files").mkdir()

    store.save(4, found.about, write)
    with pytest.raises(Exception, match="lacks the state of optimiser") as caught:
        run(recipe(a="weights"))
    assert caught.value.exit_code == 4
    assert run(recipe(a="weights"), weights_only=["a"]).metrics["weight"] == 7


def test_weights_only_without_a_checkpoint_is_refused(run, recipe):
    with pytest.raises(ConfigError, match="--weights-only a: there is no checkpoint of it"):
        run(recipe(a="weights"), weights_only=["a"])
    with pytest.raises(ConfigError, match="--weights-only b: no such stage"):
        run(recipe(a="weights"), weights_only=["b"])


def test_weights_only_of_a_stage_without_weights_is_a_sentence(run, recipe):
    with pytest.raises(TrainingError):
        run(recipe(a="count"))
    with pytest.raises(Exception, match="holds no weights of a model to start from") as caught:
        run(recipe(a="count"), weights_only=["a"])
    assert caught.value.exit_code == 4
