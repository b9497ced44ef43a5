import pytest

from tutelage.errors import DataError
from tutelage.pipeline import References
from tutelage.tracking.stage import StageFolder, StageInfo


@pytest.fixture
def finished(tmp_path):
    """A stage of another run that is finished and holds a model and prompts."""
    info = StageInfo("sft", {}, "0", {}, 0)
    with StageFolder.create(tmp_path / "other", "sft", info) as folder:
        (folder.path / "model").mkdir()
        (folder.path / "model" / "config.json").write_text("{}")
        (folder.path / "prompts.jsonl").write_text("")
    return folder.path


@pytest.fixture
def references(tmp_path, finished):
    stages = {"sft": finished, "later": tmp_path / "stages" / "later"}
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for file in files:
        file.write_text("text")
    return References(stages, {"many": tuple(files), "one": (files[0],), "none": (tmp_path / "x",)})


def test_stage_stands_for_what_the_reader_wants_of_it(references, finished):
    assert references.resolve("sft", "model") == finished / "model"
    assert references.resolve("sft", "prompts.jsonl") == finished / "prompts.jsonl"


def test_rest_of_a_reference_names_a_file_in_the_stage(references, finished):
    assert references.resolve("sft/prompts.jsonl", "model") == finished / "prompts.jsonl"


def test_file_a_stage_does_not_have_is_named_with_those_it_has(references):
    with pytest.raises(DataError, match=r"rl\.jsonl, which does not exist.*model, prompts\.jsonl"):
        references.resolve("sft/rl.jsonl", "prompts.jsonl")


def test_stage_wins_over_a_folder_of_the_same_name(references, finished, tmp_path, monkeypatch):
    (tmp_path / "sft").mkdir()
    monkeypatch.chdir(tmp_path)
    assert references.resolve("sft", "model") == finished / "model"
    assert str(references.resolve("./sft", "model")) == "sft"


def test_input_stands_for_all_its_files(references, tmp_path):
    paths = references.resolve_all(["inputs/many", "inputs/one"], "documents.jsonl")
    assert [path.name for path in paths] == ["one.txt", "two.txt", "one.txt"]


def test_several_files_are_refused_where_one_is_wanted(references):
    with pytest.raises(DataError, match="'inputs/many' stands for 2 files"):
        references.resolve("inputs/many", "prompts.jsonl")


def test_input_that_does_not_exist_is_named(references):
    with pytest.raises(DataError, match=r"inputs\.none: .*x does not exist"):
        references.resolve("inputs/none", "prompts.jsonl")


def test_finished_stage_elsewhere_stands_for_what_is_wanted_of_it(finished):
    assert References().resolve(str(finished), "model") == finished / "model"
    assert References().resolve(f"{finished}/model", "model") == finished / "model"


def test_path_stands_for_itself(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("")
    assert References().resolve(str(file), "prompts.jsonl") == file


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompts.jsonl").write_text("")
    assert References().resolve("~/prompts.jsonl", "model") == tmp_path / "prompts.jsonl"


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_name_on_a_hub_is_passed_on_for_models_alone(name):
    assert str(References().resolve(name, "model")) == name
    with pytest.raises(DataError, match="does not exist"):
        References().resolve(name, "prompts.jsonl")


@pytest.mark.parametrize(
    "name", ["models/sft/model", "/no/such/model", "prompts.jsonl", "a.txt.gz"]
)
def test_missing_path_is_not_taken_for_a_name_on_a_hub(name):
    with pytest.raises(DataError, match="does not exist"):
        References().resolve(name, "model")


def test_misspelt_stage_suggests_the_nearest(references):
    with pytest.raises(DataError, match="Did you mean 'later'"):
        references.resolve("latter/prompts.jsonl", "prompts.jsonl")
