import math

import pytest

from tutelage.errors import ConfigError
from tutelage.tracking.format import (
    decimals_for,
    duration,
    interval,
    number,
    one_line,
    parse_duration,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.23, "4.2 s"),
        (9.949, "9.9 s"),
        (9.95, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7320, "2 h 02 min"),
    ],
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (1.23456, "", None, "1.235"),
        (812345.4, "", None, "812,345"),
        (0.00012345, "", None, "0.0001234"),
        (1e-9, "", None, "1e-09"),
        (-1.5, "", 2, "-1.50"),
        (0.361, "%", 0, "36 %"),
        (18.4, "tokens", 1, "18.4 tokens"),
        (-0.001, "", 1, "0.0"),
        (None, "%", 1, "n/a"),
        (math.nan, "", None, "n/a"),
        (math.inf, "", 2, "n/a"),
    ],
)
def test_numbers_carry_their_unit(value, unit, decimals, text):
    assert number(value, unit, decimals) == text


def test_intervals_are_scaled_as_their_mean_is():
    assert interval(0.291, 0.43, "%", 0) == "[29, 43]"
    assert interval(-1.69, -1.5, decimals=2) == "[-1.69, -1.50]"
    assert interval(17, 19.25, "tokens", 1) == "[17.0, 19.2]"


@pytest.mark.parametrize(
    ("half", "unit", "decimals"),
    [
        (0.06, "", 2),
        (0.1, "", 1),
        (0.7, "", 1),
        (3, "", 0),
        (40, "", 0),
        (0.004, "", 3),
        (1e-9, "", 4),
        (0.06, "%", 0),
        (0.004, "%", 1),
    ],
)
def test_decimals_follow_the_width_of_the_interval(half, unit, decimals):
    assert decimals_for([(1 - half, 1 + half)], unit) == decimals


def test_decimals_of_several_intervals_follow_the_typical_one():
    assert decimals_for([(0, 0), (0, 0.1), (0, 0.12), (0, 8)]) == 2
    assert decimals_for([]) == decimals_for([(3, 3)]) == 2
    assert decimals_for([(1, 1)], "%") == 0


def test_no_text_can_steer_a_terminal():
    hostile = "a\x1b[31mb\r\nc\td\u202e\x07 é日"
    assert one_line(hostile) == "a [31mb  c d   é日"
    assert one_line("\n ok \n") == "ok"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("45", 45),
        ("0.5h", 1800),
        ("1d2h", 93_600),
        ("1m30s", 90),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-2h", "2 weeks", "h", "30s2m", "nan", "inf"])
def test_what_is_no_duration_is_a_sentence(text):
    with pytest.raises(ConfigError, match="is no duration: write 2h, 90m"):
        parse_duration(text)
