import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.config import TrackersConfig, load_recipe
from tutelage.errors import CheckpointError, ConfigError, DataError, TrainingError, TutelageError
from tutelage.pipeline import run_recipe
from tutelage.tracking.lock import RunLock
from tutelage.tracking.manifest import load_manifest


@pytest.fixture
def run(tmp_path, registry):
    """Runs a recipe in a folder that stays the same within a test."""

    def go(recipe, **options):
        return run_recipe(recipe, tmp_path / "run", display=False, registry=registry, **options)

    return go


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stages_run_in_order_and_read_each_other(run, recipe):
    result = run(recipe(a=["inputs/text"], b=["a"], c=["a/out.txt", "b"]))
    assert result.executed == ("a", "b", "c")
    assert (result.stage("c") / "out.txt").read_text() == "c(a(text),b(a(text)))"


def test_finished_stage_is_described_by_its_manifest(run, recipe):
    result = run(recipe(a={"model": "org/log", "epochs": 2.0}))
    manifest = load_manifest(result.stage("a"))
    assert manifest.kind == "sft"
    assert manifest.config["epochs"] == 2.0
    assert manifest.metrics["sft/loss"] == 0.25
    assert manifest.metrics["gold_calls"] == 0.0
    assert set(manifest.files) == {"out.txt", "metrics.jsonl"}


def test_tensorboard_files_belong_to_the_stage(run, recipe):
    pytest.importorskip("tensorboard")
    built = recipe(a="log").model_copy(update={"trackers": TrackersConfig()})
    names = load_manifest(run(built).stage("a")).files
    assert len([name for name in names if name.startswith("tensorboard/events")]) == 1


def test_run_folder_explains_itself(run, recipe):
    result = run(recipe(a=["inputs/text"]))
    assert names(result.folder) == {".lock", "recipe.yaml", "stages", "summary.json", "report.html"}
    assert result.report == result.folder / "report.html"
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["name"] == "fake"
    assert summary["stages"]["a"]["metrics"]["sft/loss"] == 0.25


def test_resolved_recipe_runs_as_the_same_run(run, recipe):
    first = run(recipe(a=["inputs/text"], b=["a"]))
    again = run(load_recipe(first.folder / "recipe.yaml"))
    assert again.skipped == ("a", "b")


def test_finished_stages_are_not_run_again(run, recipe):
    run(recipe(a=["inputs/text"], b=["a"]))
    result = run(recipe(a=["inputs/text"], b=["a"]))
    assert (result.executed, result.skipped) == ((), ("a", "b"))


def test_changed_setting_runs_its_stage_and_those_below_it(run, recipe):
    run(recipe(a=["inputs/text"], b=["a"], c=["b"], d=["a"]))
    result = run(recipe(a=["inputs/text"], b={"data": ["a"], "epochs": 2.0}, c=["b"], d=["a"]))
    assert sorted(result.executed) == ["b", "c"]
    assert sorted(result.skipped) == ["a", "d"]


def test_changed_input_file_runs_everything_that_depends_on_it(run, recipe, tmp_path):
    run(recipe(a=["inputs/text"], b=["a"]))
    (tmp_path / "text.txt").write_text("other")
    result = run(recipe(a=["inputs/text"], b=["a"]))
    assert result.executed == ("a", "b")
    assert (result.stage("b") / "out.txt").read_text() == "b(a(other))"


def test_touched_input_file_runs_nothing(run, recipe, tmp_path):
    run(recipe(a=["inputs/text"]))
    (tmp_path / "text.txt").write_text("text")
    assert run(recipe(a=["inputs/text"])).executed == ()


def test_other_seed_runs_everything(run, recipe):
    run(recipe(a=["inputs/text"]))
    assert run(recipe(a=["inputs/text"], seed=1)).executed == ("a",)


def test_forced_stage_runs_again_and_so_does_what_reads_it(run, recipe):
    stages = {"a": ["inputs/text"], "b": ["a"], "c": ["b"]}
    run(recipe(**stages))
    result = run(recipe(**stages), force=["b"])
    assert (result.executed, result.skipped) == (("b", "c"), ("a",))


def test_stage_forced_alone_makes_its_readers_stale(run, recipe):
    stages = {"a": ["inputs/text"], "b": ["a"]}
    run(recipe(**stages))
    assert run(recipe(**stages), only=["a"], force=["a"]).executed == ("a",)
    assert run(recipe(**stages)).executed == ("b",)


def test_only_runs_a_stage_and_what_it_needs(run, recipe):
    result = run(recipe(a=["inputs/text"], b=["a"], c=["a"], d=["c"]), only=["c"])
    assert result.executed == ("a", "c")


def test_independent_stages_run_side_by_side(run, recipe):
    result = run(recipe(a="wait", b="wait"))
    assert sorted(result.executed) == ["a", "b"]


def test_stages_that_run_side_by_side_share_the_threads(run, recipe):
    result = run(recipe(a=["inputs/text"], b=["a"], c=["a"]))
    threads = {
        name: load_manifest(result.stage(name)).metrics["threads"] for name in result.executed
    }
    assert threads == {"a": 2.0, "b": 1.0, "c": 1.0}


def test_seeds_differ_between_stages_and_repeat_between_runs(run, recipe, tmp_path, registry):
    first = run(recipe(a=["inputs/text"], b=["a"]))
    other = run_recipe(
        recipe(a=["inputs/text"], b=["a"]), tmp_path / "other", display=False, registry=registry
    )
    seeds = [[load_manifest(r.stage(name)).seed for name in "ab"] for r in (first, other)]
    assert seeds[0] == seeds[1]
    assert seeds[0][0] != seeds[0][1]


def test_children_draw_the_same_numbers_and_hashes_in_every_run(run, recipe):
    metrics = load_manifest(run(recipe(a={"seed": 5})).stage("a")).metrics
    program = "import random; random.seed(5); print(hash('text') % 1000, random.random())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    assert [metrics["hash"], metrics["random"]] == list(map(float, done.stdout.split()))


def test_children_ask_for_large_pages_and_the_caller_does_not(run, recipe):
    before = os.environ.get("THP_MEM_ALLOC_ENABLE")
    asked = load_manifest(run(recipe(a="ok")).stage("a")).metrics["large_pages"]
    assert asked == int(before or 1)
    assert os.environ.get("THP_MEM_ALLOC_ENABLE") == before


def test_errors_of_a_stage_keep_their_class_and_exit_code(run, recipe):
    with pytest.raises(TrainingError, match=r"stage a: the ratio is 1\.7, expected 1") as caught:
        run(recipe(a="diverge"))
    assert caught.value.exit_code == 3


def test_failure_keeps_finished_stages_and_removes_the_partial_one(run, recipe, tmp_path):
    with pytest.raises(TrainingError):
        run(recipe(a=["inputs/text"], b={"model": "org/diverge", "data": ["a"]}))
    assert names(tmp_path / "run" / "stages") == {"a"}
    result = run(recipe(a=["inputs/text"], b=["a"]))
    assert (result.skipped, result.executed) == (("a",), ("b",))


def test_failure_stops_the_stages_beside_it(run, recipe, tmp_path):
    with pytest.raises(TrainingError, match="stage b: after slow"):
        run(recipe(a="slow", b="fail_after_slow"))
    assert names(tmp_path / "run" / "stages") == set()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "mark").read_text()), 0)


def test_unexpected_error_leaves_its_traceback_in_a_file(run, recipe, tmp_path):
    with pytest.raises(TutelageError) as caught:
        run(recipe(a="crash"))
    place = tmp_path / "run" / "errors" / "a.txt"
    assert str(caught.value) == (
        f"stage a: unexpected RuntimeError: something; the traceback is in {place}"
    )
    assert "in _crash" in place.read_text()
    assert caught.value.exit_code == 1


def test_traceback_is_gone_once_the_stage_succeeds(run, recipe, tmp_path):
    with pytest.raises(TutelageError):
        run(recipe(a="crash"))
    run(recipe(a="ok"))
    assert not (tmp_path / "run" / "errors").exists()


def test_killed_stage_says_that_memory_may_be_short(run, recipe):
    with pytest.raises(TutelageError, match=r"memory ran out.*--parallel 1"):
        run(recipe(a="killed"))


def test_stage_that_exits_points_to_what_it_printed(run, recipe, tmp_path):
    with pytest.raises(TutelageError, match="exit code 7") as caught:
        run(recipe(a="exit"))
    log = tmp_path / "run" / "logs" / "a.txt"
    assert str(log) in str(caught.value)
    assert "last words" in log.read_text()


@pytest.mark.parametrize("action", ["full", "full_named"])
def test_full_disk_is_a_checkpoint_error_and_leaves_nothing(run, recipe, tmp_path, action):
    with pytest.raises(CheckpointError, match=r"No space left.*[Ff]ree some space"):
        run(recipe(a=action))
    assert names(tmp_path / "run" / "stages") == set()


def test_what_a_stage_prints_goes_to_its_log(run, recipe, capfd):
    result = run(recipe(a="print"))
    log = (result.folder / "logs" / "a.txt").read_text()
    assert "printed by a library" in log
    assert "warned by a library" in log
    captured = capfd.readouterr()
    assert "library" not in captured.out + captured.err


def test_trackers_that_are_down_never_stop_a_stage_and_are_reported_once(
    recipe, registry, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "trackers_down"))
    built = recipe(a="log_often").model_copy(
        update={"trackers": TrackersConfig(wandb=True, trackio=True, tensorboard=False)}
    )
    result = run_recipe(built, tmp_path / "run", registry=registry)
    assert len((result.stage("a") / "metrics.jsonl").read_text().splitlines()) == 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "without it" in line]
    assert lines == [
        "[a] wandb cannot be opened, the stage goes on without it: no route to host",
        "[a] TrackioSink failed, training goes on without it: database is locked",
    ]


def test_log_on_a_full_disk_never_stops_a_stage(run, recipe, tmp_path):
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "a.txt").symlink_to("/dev/full")
    assert run(recipe(a="chatter")).executed == ("a",)


def test_stage_that_must_not_see_gold_cannot_import_it(run, recipe):
    with pytest.raises(TutelageError, match="only evaluate stages may see the gold score"):
        run(recipe(a="gold"))


def test_evaluation_may_import_gold_and_its_calls_are_counted(run, recipe, registry, tmp_path):
    module = {"sft": "fake_stage", "evaluate": "fake_evaluation"}
    evaluation = {
        "kind": "evaluate",
        "models": {"x": "org/m"},
        "baseline": "x",
        "prompts": "inputs/text",
    }
    built = recipe(a=["inputs/text"])
    built = type(built).model_validate(
        {**built.to_json(), "stages": {**built.to_json()["stages"], "e": evaluation}}
    )
    result = run_recipe(built, tmp_path / "run", display=False, registry=type(registry)(module))
    assert load_manifest(result.stage("e")).metrics["gold_calls"] == 3.0
    assert load_manifest(result.stage("a")).metrics["gold_calls"] == 0.0


def test_second_run_on_a_folder_is_refused(run, recipe, tmp_path):
    with RunLock(tmp_path / "run"), pytest.raises(CheckpointError, match="in use by process"):
        run(recipe(a=["inputs/text"]))


def test_folder_that_cannot_be_written_is_named(recipe, registry, tmp_path):
    folder = tmp_path / "text.txt" / "run"
    with pytest.raises(CheckpointError, match=r"cannot write .*text\.txt/run"):
        run_recipe(recipe(a=["inputs/text"]), folder, display=False, registry=registry)


def test_damaged_stage_is_named_and_not_used(run, recipe):
    result = run(recipe(a=["inputs/text"], b=["a"]))
    (result.stage("a") / "out.txt").write_text("a(TEXT)")
    with pytest.raises(CheckpointError, match=r"a/out\.txt is damaged"):
        run(recipe(a=["inputs/text"], b=["a"]))


def test_forced_stage_replaces_a_damaged_one(run, recipe):
    result = run(recipe(a=["inputs/text"]))
    (result.stage("a") / "out.txt").write_text("a(TEXT)")
    assert run(recipe(a=["inputs/text"]), force=["a"]).executed == ("a",)


def test_input_that_is_not_given_names_its_option(run, recipe):
    built = recipe(a=["inputs/text"]).model_copy(update={"inputs": {"text": None}})
    with pytest.raises(ConfigError, match=r"--inputs\.text FILE"):
        run(built)


def test_input_that_does_not_exist_fails_before_anything_runs(run, recipe, tmp_path):
    built = recipe(a=["inputs/text"], b=["inputs/text"])
    (tmp_path / "text.txt").unlink()
    with pytest.raises(DataError, match=r"inputs\.text: .*text\.txt does not exist"):
        run(built)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["only", "force"])
def test_unknown_stage_name_suggests_the_nearest(run, recipe, option):
    with pytest.raises(ConfigError, match=f"--{option} sample: .*Did you mean 'samples'"):
        run(recipe(samples=["inputs/text"]), **{option: ["sample"]})
