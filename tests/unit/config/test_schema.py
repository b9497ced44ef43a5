from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt

from tutelage.config import Recipe, RewardPhase, Section, SFTStage
from tutelage.config.schema import field_shape, leaves, section_at, shape_at


class Inner(Section):
    count: PositiveInt = 1
    """How many."""
    rate: float = 0.5


class Outer(Section):
    inner: Inner = Inner(rate=0.25)
    maybe: Inner | None = None
    share: float | None = Field(default=None, gt=0.0, le=1.0)
    name: Annotated[str, Field(pattern="^a")] = "a"
    choice: Literal["x", "y"] | PositiveInt = "x"
    pair: tuple[int, str] = (1, "b")
    many: tuple[Inner, ...] = ()
    weights: dict[str, float]
    flag: bool = True


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("inner", "a section with count, rate"),
        ("maybe", "a section with count, rate or null"),
        ("share", "a number above 0.0 and of at most 1.0 or null"),
        ("choice", "one of 'x', 'y' or an integer above 0"),
        ("pair", "a list of 2: an integer, text"),
        ("many", "a list, each item a section with count, rate"),
        ("weights", "names, each with a number"),
        ("flag", "true or false"),
    ],
)
def test_what_a_field_allows_is_said_in_words(key, words):
    assert field_shape(Outer.model_fields[key]).describe() == words


def test_leaves_have_the_defaults_of_the_field_they_are_in():
    found = {".".join(leaf.path): leaf for leaf in leaves(Outer)}
    assert found["inner.rate"].default == 0.25
    assert found["maybe.rate"].default == 0.5
    assert found["inner.count"].help == "How many."
    assert found["weights"].required
    assert "many" in found
    assert not found["inner.count"].required


def test_path_is_followed_through_unions_lists_and_mappings():
    values = {"stages": {"a": {"kind": "sft"}, "r": {"kind": "reward"}, "x": {"kind": "no"}}}
    assert section_at(Recipe, values, ("stages", "a")) is SFTStage
    assert section_at(Recipe, values, ("stages", "r", "phases", 0)) is RewardPhase
    assert section_at(Recipe, values, ("stages", "x")) is None
    assert section_at(Recipe, values, ("stages", "a", "nothing", "here")) is None
    assert shape_at(Recipe, values, ("stages", "a", "nothing")) is None
    epochs = shape_at(Recipe, values, ("stages", "a", "epochs"))
    assert epochs is not None
    assert epochs.describe() == "a number above 0"


def test_section_given_in_part_keeps_the_default_of_its_field_at_every_depth():
    class Outermost(Section):
        outer: Outer = Outer(inner=Inner(count=7, rate=0.125), weights={"a": 1.0}, flag=False)

    found = Outermost.model_validate({"outer": {"inner": {"rate": 1.0}}}).outer
    assert (found.inner.count, found.inner.rate, found.flag) == (7, 1.0, False)
    assert found.weights == {"a": 1.0}
