import copy
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.example_run import HOSTILE, write_example_run
from tutelage.tracking.report import render_report

# Written as escapes because they look like other signs.
MINUS, SIGMA = "\u2212", "\u03c3"
SECTIONS = ["outcome", "answers", "stages", "feedback", "reward-models", "training", "frontier"]
SECTIONS += ["length", "configuration"]


class Page(HTMLParser):
    """Tags, their attributes, and the visible text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.attributes, self.words = [], [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example_run(tmp_path_factory.mktemp("runs") / "demo", steps=8)


@pytest.fixture(scope="module")
def html(example):
    return render_report(example).read_text("utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def folder(example, tmp_path):
    return shutil.copytree(example, tmp_path / "demo")


def test_a_full_run_has_every_section_and_the_navigation_reaches_each(page):
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len(page.ids) == len(set(page.ids))


def test_the_page_needs_nothing_from_outside_and_runs_nothing(html, page):
    assert len(html.encode()) < 1_000_000
    assert not {"script", "iframe", "img", "object", "embed", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{tag} has a handler"
        if name in ("src", "href", "xlink:href", "action", "srcset"):
            assert value.startswith(("#", "data:")), f"{tag} {name}={value}"
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_hostile_text_is_shown_and_not_obeyed(html, page):
    assert "<script>" not in html
    assert " ".join(HOSTILE.split()) in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count(HOSTILE) >= 3


def test_the_headline_table_shows_each_number_with_its_interval(page):
    table = page.text[page.text.index("The models side by side") :]
    row = table[table.index("Gold score") :]
    expected = (
        f"0.23 [0.17, 0.29] {MINUS}1.62 [{MINUS}1.69, {MINUS}1.55] worse 0.61 [0.55, 0.67] better"
    )
    assert expected in row.replace("\u00a0", " ")[:400]


def test_a_rising_proxy_is_not_called_better(page):
    table = page.text[page.text.index(f"Proxy reward ({SIGMA})") :]
    assert "better" not in table[: table.index("Gold score")]


def test_the_verdict_is_the_first_thing_to_read(page):
    start = page.text[: page.text.index("The models side by side")]
    assert "Reward hacking" in start
    assert "A real gain" in start


def test_answers_stand_side_by_side_with_their_scores(page):
    part = page.text[page.text.index("answered by each model") : page.text.index("Key numbers")]
    first = part[part.index("How much is my bill?") : part.index("When is it due?")]
    assert "Your bill is $52." in first
    assert "Thank you so much for asking!" in first
    assert "Your bill is $47. Happy to help!" in first
    assert f"Proxy reward 6.10 Gold score {MINUS}1.70" in re.sub(r"\s+", " ", first)


def test_a_curve_of_exploration_has_its_name_and_its_sentence(page):
    assert "Distinct-2 Different token pairs over all pairs of a round." in page.text


def test_every_other_curve_is_there_and_constant_ones_are_told_in_words(page):
    assert "policy/clip_active_fraction" in page.text
    assert "value/explained_variance" in page.text
    assert "Unchanged throughout: train/skipped 0." in page.text
    assert "throughput/tokens_per_second" not in page.text


def test_training_samples_show_the_beginning_the_middle_and_the_end(page):
    part = page.text[page.text.index("What ppo-guarded wrote while it trained") :]
    part = part[: part.index("Reward against KL")]
    assert re.findall(r"Step (\d+)", part) == ["1", "5", "8"]
    assert "model 1.50" in part
    assert "KL 4.80" in part


def test_stages_labels_and_reward_models_have_their_numbers(page):
    for expected in (
        "sft/tokens 812,345",
        "people with people 69.9 % [67.2, 72.5], n = 1,100",
        "judge 12,000",
        "Held-out accuracy 66.0 % [63.0, 69.0], n = 1,000 81.0 % [78.0, 84.0], n = 1,000",
        "Gain of the last phase n/a 7.4 % [3.1, 11.7], n = 1,000",
        "optimiser.learning_rate 0.00015",
    ):
        assert expected in page.text.replace("\u00a0", " "), expected


@pytest.mark.parametrize(
    ("left", "sections"),
    [
        ({"sft"}, ["stages", "configuration"]),
        ({"labels"}, ["stages", "feedback", "configuration"]),
        ({"reward-people"}, ["stages", "reward-models", "configuration"]),
        ({"ppo-guarded"}, ["stages", "training", "frontier", "configuration"]),
        (
            {"evaluate"},
            ["outcome", "answers", "stages", "training", "frontier", "length", "configuration"],
        ),
    ],
)
def test_what_was_not_run_is_simply_absent(folder, left, sections):
    for name in set(os.listdir(folder / "stages")) - left:
        shutil.rmtree(folder / "stages" / name)
    (folder / "summary.json").unlink()
    page = Page(render_report(folder).read_text("utf-8"))
    assert [name for name in SECTIONS if name in page.ids] == sections


def with_more_models(folder, count):
    """The example's evaluation with copies of its last model, every pair stated."""
    path = folder / "stages" / "evaluate" / "evaluation.json"
    row = json.loads(path.read_text())
    last = row["models"][-1]
    between = [it for it in row["differences"] if it["model"] == "guarded"]
    for number in range(count - len(row["models"])):
        name = f"copy{number}"
        row["models"].append({**copy.deepcopy(last), "name": name, "label": name})
        row["differences"] += [{**it, "model": name} for it in between]
    path.write_text(json.dumps(row))
    return Page(render_report(folder).read_text("utf-8"))


def test_nine_models_are_rows_whose_names_stay_in_view(folder):
    page = with_more_models(folder, 9)
    table = page.text[page.text.index("The models side by side") :].replace("\u00a0", " ")
    head = table[: table.index("Before")]
    assert head.index("Proxy reward") < head.index("Gold score") < head.index("Length")
    row = table[table.index("Copy5") : table.index("What is measured")]
    # Proxy, gold, length: mean, interval and what it is against the baseline.
    assert "1.3 [1.2, 1.4] 0.61 [0.55, 0.67] better 27.9 [27.0, 28.8]" in row
    assert ("table", "class", "many") in page.attributes
    assert ("div", "tabindex", "0") in page.attributes


def test_many_models_are_compared_with_the_baseline_alone(folder):
    page = with_more_models(folder, 9)
    part = page.text[page.text.index("Differences to Before, prompt by prompt") :]
    part = part[: part.index("The same prompts")]
    assert f"Copy5 {MINUS} Before" in part
    assert f"{MINUS} Unguarded" not in part


@pytest.mark.parametrize(("count", "colours"), [(3, 3), (9, 9), (12, 10)])
def test_models_have_colours_of_their_own_as_long_as_there_are_some(folder, count, colours):
    page = with_more_models(folder, count)
    dots = {
        value for tag, name, value in page.attributes if name == "style" and "--colour" in value
    }
    assert len(dots) >= colours
    assert all(int(re.search(r"series-(\d+)", dot)[1]) < 10 for dot in dots)


def test_a_run_without_finished_stage_has_none(tmp_path):
    with pytest.raises(CheckpointError, match="no finished stage"):
        render_report(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_missing_matplotlib_names_the_extra_and_keeps_the_old_report(folder):
    (folder / "report.html").write_text("old")
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from tutelage.errors import MissingExtraError\n"
        "from tutelage.tracking.report import render_report\n"
        "try:\n    render_report(Path(sys.argv[1]))\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "matplotlib is not installed: pip install 'tutelage[report]'"
    assert (folder / "report.html").read_text() == "old"


def test_alarms_that_rang_are_listed_on_their_stage_and_not_among_its_numbers(page):
    assert page.text.count("Alarm ") == 1
    assert "Alarm kl_runaway: 4 rounds, first in step 21" in page.text
    assert "alarm/" not in page.text
