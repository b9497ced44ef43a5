import re
import xml.etree.ElementTree as ET

import pytest

from tutelage.tracking.plots import (
    Point,
    Series,
    curves,
    frontier,
    histogram,
    reliability,
    reward_against_length,
)

NAME = "<b>$\\frac{</b> & {{ x }}"


def line():
    steps = list(range(30))
    return Series(NAME, steps, [step**0.5 for step in steps], 1)


CHARTS = {
    "curves": lambda: curves("c", [line()]),
    "band": lambda: curves("b", [Series("a", [1, 2], [0, 1], 2, [-1, 0], [1, 2])]),
    "frontier": lambda: frontier(
        "f", [line()], [Point(NAME, (1, 0, 2), (1, 1, 1), 0)], x_label=NAME, y_label="y"
    ),
    "histogram": lambda: histogram("h", [(NAME, [1, 2, 2, 3], 0), ("b", [9], 1)], x_label=NAME),
    "reliability": lambda: reliability(
        "r", [{"low": 0, "high": 1, "predicted": 0.4, "observed": 0.5, "count": 9}], 1
    ),
    "scatter": lambda: reward_against_length("s", [[1, 2.0], [3, 1.0], [3, 4.0]], 1),
}


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_is_one_svg_element_without_fixed_colours_or_requests(chart):
    svg = CHARTS[chart]()
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "width" not in root.attrib
    assert root.attrib["viewBox"]
    assert "var(--series-" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert not re.search(r"<(style|script|image|metadata)", svg)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))


@pytest.mark.parametrize("chart", ["frontier", "histogram"])
def test_a_hostile_label_stays_text(chart):
    root = ET.fromstring(CHARTS[chart]())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert NAME in texts


def test_two_charts_on_a_page_share_no_id():
    ids = [set(re.findall(r'\bid="([^"]*)"', curves(name, [line()]))) for name in ("a", "b")]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]


def test_the_same_data_make_the_same_chart():
    assert curves("a", [line()]) == curves("a", [line()])


def test_every_reference_inside_a_chart_resolves():
    svg = CHARTS["frontier"]()
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg))
    assert wanted
    assert wanted <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_a_big_scatter_is_thinned():
    points = [[i, i % 7] for i in range(5000)]
    assert len(reward_against_length("s", points, 1)) < 60_000


def test_a_long_curve_stays_small_and_keeps_its_shape():
    steps = list(range(20_000))
    short = curves("c", [Series("a", steps[:200], [step % 7 for step in steps[:200]], 0)])
    long = curves("c", [Series("a", steps, [step % 7 for step in steps], 0)])
    assert len(long) < 1.5 * len(short)


def test_equal_values_and_single_points_are_drawn_too():
    assert histogram("h", [("a", [5, 5, 5], 0)], x_label="x").startswith("<svg")
    assert curves("c", [Series("a", [1], [2.0], 0)]).startswith("<svg")
    assert reliability("r", [{"predicted": 0.5, "observed": 0, "count": 0}], 0).startswith("<svg")
    assert reward_against_length("s", [[1, 1.0]], 0).startswith("<svg")
