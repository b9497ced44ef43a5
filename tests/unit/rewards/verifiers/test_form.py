"""Regular expressions and JSON schemas; neither hangs."""

import json
import time

import pytest

from tutelage.errors import ConfigError
from tutelage.records import ScoreStatus
from tutelage.rewards.verifiers.fences import fenced_blocks
from tutelage.rewards.verifiers.json_schema import JsonSchema, json_value
from tutelage.rewards.verifiers.regex import Regex


def test_the_whole_answer_must_match(asked):
    verify = Regex(r"(?s)<think>.*</think>.*").verify
    assert verify(asked(), "<think>so\nso</think> 7").value == 1.0
    assert verify(asked(), "well, <think>so</think> 7").value == 0.0
    assert verify(asked(), "7").value == 0.0


def test_matching_that_does_not_end_is_cut_off_and_earns_nothing(asked):
    start = time.process_time()
    score = Regex(r"(a|aa)+$").verify(asked(), "a" * 5000 + "!")
    # Seconds of this process; what grows with the square of the length would take minutes.
    assert time.process_time() - start < 10.0
    assert score.status is ScoreStatus.TIMEOUT


def test_a_pattern_that_is_none_is_named():
    with pytest.raises(ConfigError, match="is no regular expression"):
        Regex("(")


SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
    "additionalProperties": False,
}


@pytest.fixture
def schema(tmp_path) -> str:
    pytest.importorskip("jsonschema")
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"name": "Ada"}', 1.0),
        ('```json\n{"name": "Ada"}\n```', 1.0),
        ('  {"name": "Ada"}\n', 1.0),
        ('{"name": 1}', 0.0),
        ('{"name": "Ada", "age": 1}', 0.0),
        ("{}", 0.0),
        ('Here it is: {"name": "Ada"}', 0.0),
        ('{"name": "Ada"', 0.0),
        ("NaN", 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ("{" * 100_000, 0.0),
    ],
    ids=lambda x: str(x)[:24],
)
def test_answers_of_the_schema_are_accepted(schema, text, value, asked):
    start = time.process_time()
    assert JsonSchema(schema).verify(asked(), text).value == value
    # Seconds of this process; what grows with the square of the length would take minutes.
    assert time.process_time() - start < 10.0


def test_a_schema_that_is_none_is_named(schema, tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json"):
        JsonSchema(str(tmp_path / "none.json"))
    (tmp_path / "schema.json").write_text('{"type": "thing"}')
    with pytest.raises(ConfigError, match="thing"):
        JsonSchema(schema)


def test_json_may_stand_in_a_fence_but_not_among_words():
    assert json_value("```\n[1]\n```") == [1]
    with pytest.raises(ValueError, match="Expecting value"):
        json_value("so:\n```\n[1]\n```")


def test_blocks_are_found_with_their_languages():
    text = "a\n```Python\nx = 1\n```\nb\n```\ny\n```\n``` js\nz"
    found = [(block.language, block.code, block.alone) for block in fenced_blocks(text)]
    assert found == [("python", "x = 1\n", False), ("", "y\n", False), ("js", "z", False)]
    assert fenced_blocks("```\nx\n```")[0].alone
