"""Markdown of strangers. What a browser makes of it is in tests/browser."""

import time
from html.parser import HTMLParser

import pytest

from tutelage.feedback.server.markdown import render, sanitise

pytest.importorskip("markdown_it")


class Found(HTMLParser):
    """Collects the tags and attributes that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_structure_is_shown():
    html = render("# Title\n\n- one\n- **two**\n\n| a | b |\n|---|---|\n| 1 | `2` |\n\n~~no~~")
    assert {"h3", "ul", "li", "strong", "table", "td", "code", "s"} <= set(Found(html).tags)


def test_headings_of_a_text_stand_below_those_of_the_page():
    html = render("# one\n\n### three\n\n###### six")
    assert [tag for tag in Found(html).tags if tag != "p"] == ["h3", "h5", "h6"]


def test_raw_html_is_text():
    html = render("<b onclick=x>hi</b><script>alert(1)</script>")
    assert set(Found(html).tags) == {"p"}
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<b>",
        "vbscript:x",
        "//evil.example",
        "/logout",
        "file:///etc/passwd",
        "javascript&colon;alert(1)",
        "\x01javascript:alert(1)",
    ],
)
def test_links_lead_nowhere_but_to_the_web(address):
    assert "href" not in dict(Found(render(f"[x]({address}) [y](<{address}>)")).attributes)


def test_link_to_the_web_tells_the_other_side_nothing():
    (attributes,) = [Found(render("[x](https://example.org/?a=1&b=2)")).attributes]
    assert dict(attributes) == {
        "href": "https://example.org/?a=1&b=2",
        "rel": "noopener noreferrer nofollow",
        "target": "_blank",
    }


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/x.png", "http://169.254.169.254/latest"])
def test_image_addresses_are_never_images(source):
    """R-AN-10: neither the server nor the browser fetches what a model names."""
    assert "img" not in Found(render(f"![x]({source})")).tags


def test_allow_list_trusts_nobody():
    hostile = (
        '<p style="x" onclick="y" id="z">a<img src=x onerror=y><svg onload=z>'
        '<a href="javascript:1">b</a></p></div><ol start="3x"><iframe src=q></iframe>'
    )
    found = Found(sanitise(hostile))
    assert found.tags == ["p", "a", "ol"]
    assert found.attributes == []


def test_whatever_is_left_open_is_closed():
    assert sanitise("<ul><li><strong>x") == "<ul><li><strong>x</strong></li></ul>"
    assert sanitise("</p></ul>x") == "x"
    assert sanitise("<p><em>x</p>y") == "<p><em>x</em></p>y"


def test_control_characters_are_visible():
    assert "\N{REPLACEMENT CHARACTER}" in render("a\x00b\x1b[31m")


@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, "[" * 40_000, "*_" * 24_000, "> " * 24_000, "`" * 49_999, "- " * 24_000],
)
def test_long_and_deep_texts_take_no_time(text):
    begun = time.perf_counter()
    html = render(text)
    # Far above what it takes here (0.1 s), far below what a quadratic parser would.
    assert time.perf_counter() - begun < 10
    assert html
