"""Constitutions on disk: what they hold, which version they are, what is wrong with them."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.judging import constitution as package
from tutelage.judging.constitution import BUNDLED, load_constitution

FILE = """\
name: library desk
preamble: You work in a library.
principles:
  - id: say-where
    critique: Does it say where?
    revision: Say where.
    question: Which says where?
  - id: be-short
    critique: Is it long?
    revision: Make it short.
    question: Which is shorter?
    category: brevity
    weight: 3
"""


@pytest.fixture
def write(tmp_path):
    def build(text: str) -> Path:
        path = tmp_path / "desk.yaml"
        path.write_text(text)
        return path

    return build


def test_file_is_read_and_known_by_the_digest_of_its_bytes(write):
    found = load_constitution(write(FILE))
    assert (found.name, found.preamble) == ("library desk", "You work in a library.")
    assert [principle.id for principle in found.principles] == ["say-where", "be-short"]
    short = found.principles[1]
    assert (short.critique, short.revision) == ("Is it long?", "Make it short.")
    assert (short.question, short.category, short.weight) == ("Which is shorter?", "brevity", 3.0)
    assert found.principles[0].weight == 1.0
    assert found.sha256 == hashlib.sha256(FILE.encode()).hexdigest()


def test_one_changed_letter_is_another_version(write):
    before = load_constitution(write(FILE)).sha256
    assert load_constitution(write(FILE.replace("Say where.", "Say where!"))).sha256 != before


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ("    revision: Say where.\n", "", r"desk\.yaml:4: .*revision.*"),
        ("    weight: 3", "    weight: 0", r"desk\.yaml:13: .*weight.*0"),
        ("    category:", "    catgory:", r"desk\.yaml:12: .*catgory.*Did you mean 'category'"),
        ("id: be-short", "id: Be short", r"desk\.yaml:8: .*id.*Be short"),
        ("id: be-short", "id: say-where", r"desk\.yaml:3: .*'say-where' occurs twice"),
        ("critique: Is it long?", "critique: ' '", r"desk\.yaml:9: .*critique"),
        ("name: library desk\n", "", r"desk\.yaml.*name"),
        ("  - id: be-short", "  - id: [be-short", r"desk\.yaml:\d+: not valid YAML"),
    ],
)
def test_fault_is_named_by_file_and_line(write, found, wanted, message):
    with pytest.raises(ConfigError) as error:
        load_constitution(write(FILE.replace(found, wanted, 1)))
    assert re.search(message, str(error.value), re.DOTALL), str(error.value)


def test_all_faults_are_listed_at_once(write):
    text = FILE.replace("revision: Say where.", "revsion: Say where.").replace(
        "weight: 3", "weight: x"
    )
    with pytest.raises(ConfigError) as error:
        load_constitution(write(text))
    assert {line.split(": ")[0].rpartition(":")[2] for line in str(error.value).splitlines()} >= {
        "6",
        "13",
    }


def test_missing_file_and_unknown_name_say_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_constitution(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match=r"choose from .*Did you mean 'medical'"):
        load_constitution("medicl")


# The bundled ones


def test_five_constitutions_come_with_the_package():
    assert BUNDLED == ("customer-service", "finance", "general-assistant", "legal", "medical")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_constitution_says_each_thing_once(name):
    found = load_constitution(name)
    assert 8 <= len(found.principles) <= 16
    assert found.preamble
    texts = [
        text for each in found.principles for text in (each.critique, each.revision, each.question)
    ]
    assert len(set(texts)) == len(texts)
    assert all(principle.category for principle in found.principles)
    # Requests of a principle go to the writer as they are: each is a whole sentence.
    assert all(text[0].isupper() and text[-1] in ".?" for text in texts)


@pytest.mark.parametrize("name", ["medical", "legal", "finance"])
def test_domains_ask_for_hedging_precision_and_referral(name):
    about = {principle.category for principle in load_constitution(name).principles}
    assert about >= {"hedging", "precision", "referral"}


def test_bundled_files_are_package_data():
    folder = Path(package.__file__).with_name("bundled")
    assert {path.stem for path in folder.glob("*.yaml")} == set(BUNDLED)
    assert (folder / "__init__.py").exists()


# Drawing


def test_order_depends_on_the_key_alone(constitution):
    found = constitution(a=1, b=2, c=1, d=5)
    assert found.order("x") == found.order("x")
    assert len({tuple(each.id for each in found.order(str(i))) for i in range(200)}) > 10
    assert sorted(each.id for each in found.order("x")) == ["a", "b", "c", "d"]


def test_first_is_drawn_by_its_share_of_the_weights(constitution):
    found = constitution(a=1, b=3, c=6)
    count = 4000
    firsts = Counter(found.order(str(i))[0].id for i in range(count))
    # Four standard deviations of a share of 4,000 draws are 0.032 at most.
    for name, share in {"a": 0.1, "b": 0.3, "c": 0.6}.items():
        assert firsts[name] / count == pytest.approx(share, abs=0.032)


def test_second_is_drawn_likewise_among_the_rest(constitution):
    found = constitution(a=1, b=3, c=6)
    orders = [[each.id for each in found.order(str(i))] for i in range(4000)]
    after_c = [second for first, second, _ in orders if first == "c"]
    # b is 3 of the 4 that are left; four standard deviations of about 2,400 draws.
    assert after_c.count("b") / len(after_c) == pytest.approx(0.75, abs=0.036)
