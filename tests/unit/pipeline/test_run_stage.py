import pytest

from tutelage.config import SFTStage
from tutelage.errors import ConfigError, TrainingError
from tutelage.pipeline import run_stage
from tutelage.tracking.manifest import load_manifest


@pytest.fixture
def run(tmp_path, registry):
    """Runs a stage that reads `text.txt` and writes the folder `out`."""
    text = tmp_path / "text.txt"
    text.write_text("text")

    def go(action="ok", *, data=(str(text),), output="out", **settings):
        stage = SFTStage(model=f"org/{action}", data=tuple(map(str, data)), **settings)
        return run_stage(stage, tmp_path / output, display=False, registry=registry)

    return go


def test_stage_on_its_own_writes_a_finished_folder_and_nothing_else(run, tmp_path):
    folder = run()
    assert folder == tmp_path / "out"
    assert (folder / "out.txt").read_text() == "sft(text)"
    assert load_manifest(folder).kind == "sft"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "text.txt"}


def test_stage_reads_finished_stages_and_what_is_named_like_itself(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(output="sft")
    assert (run(data=["sft"]) / "out.txt").read_text() == "sft(sft(text))"


def test_finished_stage_is_kept(run):
    before = load_manifest(run()).finished
    folder = run()
    assert load_manifest(folder).finished == before


def test_folder_with_another_stage_is_refused(run):
    run()
    with pytest.raises(ConfigError, match=r"made with other settings.*epochs changed"):
        run(epochs=2.0)


def test_folder_with_other_files_is_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="out is not empty"):
        run()
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_empty_folder_is_taken(run, tmp_path):
    (tmp_path / "out").mkdir()
    run()
    assert (tmp_path / "out" / "out.txt").exists()


def test_failed_stage_leaves_nothing(run, tmp_path):
    with pytest.raises(TrainingError, match="stage sft: the ratio is 1"):
        run("diverge")
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt"}


def test_unexpected_error_leaves_its_traceback_beside_the_folder(run, tmp_path):
    with pytest.raises(Exception, match="RuntimeError"):
        run("crash")
    assert "in _crash" in (tmp_path / "out.errors" / "sft.txt").read_text()
