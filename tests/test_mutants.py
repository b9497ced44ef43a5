"""The planted mistakes can all be planted; `make mutants` then shows that each is caught."""

import re
from pathlib import Path

import pytest
from mutants import MUTANTS, PAGE, planted

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_mistake_can_be_planted(mutant):
    assert planted(mutant) != (ROOT / mutant.file).read_text("utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_tests_named_for_a_mistake_exist(mutant):
    for name in mutant.tests:
        file, _, function = name.partition("::")
        assert f"def {function}" in (ROOT / file).read_text("utf-8")


def test_every_mistake_has_a_name_of_its_own():
    names = [mutant.id for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 20


def test_page_lists_the_catalogue():
    rows = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [mutant.id for mutant in MUTANTS]
