import pytest

from tutelage.errors import ConfigError
from tutelage.judging import Rubric


def test_text_file_is_the_rubric(tmp_path):
    (tmp_path / "tone.txt").write_text("Be kind.\nBe brief.\n")
    rubric = Rubric.load(tmp_path / "tone.txt")
    assert (rubric.name, rubric.text) == ("tone", "Be kind.\nBe brief.")


def test_yaml_file_has_criteria(tmp_path):
    (tmp_path / "tone.yaml").write_text(
        "name: kindness\nrubric: The kinder answer is better.\n"
        "criteria:\n  warm: it greets\n  brief: >\n    no more\n    than needed\n"
    )
    rubric = Rubric.load(tmp_path / "tone.yaml")
    assert rubric.name == "kindness"
    assert rubric.text.splitlines() == [
        "The kinder answer is better.",
        "",
        "- warm: it greets",
        "- brief: no more than needed",
    ]


def test_hash_is_of_what_is_said():
    assert Rubric("a", "Be kind.").sha256 == Rubric("b", "Be kind.").sha256
    assert Rubric("a", "Be kind.").sha256 != Rubric("a", "Be brief.").sha256
    assert len(Rubric("a", "Be kind.").sha256) == 64


def test_general_rubric_comes_with_the_package():
    assert "better answer" in Rubric.load().text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "  \n", "is empty"),
        ("a.yaml", "rubric: [one]\n", "expected `rubric`"),
        ("a.yaml", "criteria: {kind: it greets}\n", "expected `rubric`"),
        ("a.yaml", "rubric: one\ncriterion: two\n", "criterion"),
        ("a.yaml", "rubric: one\ncriteria: two\n", "expected `rubric`"),
    ],
)
def test_file_without_a_rubric_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=says):
        Rubric.load(tmp_path / name)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.txt: expected 'general'"):
        Rubric.load(tmp_path / "none.txt")
