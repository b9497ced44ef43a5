import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.labs.timeline import THREADS, read_milestones

ENTRY = "{year: 1990, title: A, thread: language, why: b, source: c}"


def test_milestones_run_from_the_perceptron_to_gpt_4():
    milestones = read_milestones()
    years = [one.year for one in milestones]
    titles = [one.title for one in milestones]
    assert (years[0], titles[0], years[-1]) == (1957, "Perceptron", 2023)
    assert {"ChatGPT", "GPT-4", "Transformer", "PPO", "Backpropagation"} <= set(titles)
    assert years == sorted(years)
    assert len(set(titles)) == len(titles) >= 20


def test_every_milestone_has_a_reason_and_a_source_with_a_year():
    for one in read_milestones():
        assert one.thread in THREADS
        assert one.why.endswith(".")
        # Longer ones leave the figure.
        assert len(one.why) < 105
        assert any(f"{century}" in one.source for century in ("19", "20", "arXiv:"))


def test_entries_are_sorted_by_year(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text(f"milestones:\n- {ENTRY}\n- {ENTRY.replace('1990', '1980')}\n")
    assert [one.year for one in read_milestones(file)] == [1980, 1990]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ENTRY.replace("why: b, ", ""), r"t\.yaml:2: expected the keys"),
        (ENTRY.replace("why", "because"), r"t\.yaml:2: expected the keys"),
        (ENTRY.replace("1990", "then"), "year 'then' is no whole number"),
        (ENTRY.replace("language", "music"), "thread 'music', expected one of networks"),
    ],
)
def test_faulty_entry_is_named(tmp_path, entry, message):
    file = tmp_path / "t.yaml"
    file.write_text(f"milestones:\n- {entry}\n")
    with pytest.raises(DataError, match=message):
        read_milestones(file)


def test_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_milestones(tmp_path / "none.yaml")
    empty = tmp_path / "empty.yaml"
    empty.write_text("milestones: []\n")
    with pytest.raises(DataError, match="no milestones"):
        read_milestones(empty)
