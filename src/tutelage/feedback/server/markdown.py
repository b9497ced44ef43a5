"""Markdown of strangers as HTML that can do nothing.

    text ──markdown-it, raw HTML off──> HTML ──allow-list──> the tags and attributes below, only

What models write is hostile until shown otherwise. The second step does not trust the first.
Images are never loaded, neither by the server nor by the browser: they become links.
"""

import re
from functools import cache
from html import escape
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tutelage.errors import MissingExtraError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["render", "sanitise"]

_INLINE = {"br", "strong", "em", "s", "del", "code", "a"}
_BLOCKS = {"p", "hr", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"}
_TAGS = _INLINE | _BLOCKS | {"table", "thead", "tbody", "tr", "th", "td"}
_HEADINGS = {f"h{n}": f"h{min(6, n + 2)}" for n in range(1, 7)}
"""The page's own headings stand above those of a text."""
_EMPTY = frozenset({"br", "hr"})
_LINK = re.compile(r"(https?://|mailto:)[^\s\x00-\x1f]*", re.IGNORECASE)
_LONGEST = 50_000
"""Characters; a longer text is shown as it is, because its structure could take for ever."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def render(text: str) -> str:
    """HTML of a Markdown text, safe to be put into a page.

    Raises:
        MissingExtraError: markdown-it-py is not installed.
    """
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(text) > _LONGEST:
        return f"<pre>{escape(text)}</pre>"
    return sanitise(_parser().render(text))


def sanitise(html: str) -> str:
    """The same HTML without any tag or attribute that is not allowed."""
    parser = _AllowList()
    parser.feed(html)
    parser.close()
    return parser.result()


class _AllowList(HTMLParser):
    """Writes what it reads anew, allowed tags as tags and everything else as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        tag = _HEADINGS.get(tag, tag)
        if tag not in _TAGS:
            return
        self._parts.append(f"<{tag}{_attributes(tag, dict(attrs))}>")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        tag = _HEADINGS.get(tag, tag)
        # Closing in order whatever is open keeps each answer within its own box.
        if tag in self._open:
            while (last := self._open.pop()) != tag:
                self._parts.append(f"</{last}>")
            self._parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._parts.append(escape(data))

    def result(self) -> str:
        return "".join([*self._parts, *(f"</{tag}>" for tag in reversed(self._open))])


def _attributes(tag: str, given: dict[str, str | None]) -> str:
    if tag == "ol" and re.fullmatch(r"\d{1,9}", given.get("start") or ""):
        return f' start="{given["start"]}"'
    href = given.get("href") or ""
    if tag == "a" and _LINK.fullmatch(href):
        return f' href="{escape(href)}" rel="noopener noreferrer nofollow" target="_blank"'
    return ""


@cache
def _parser() -> "MarkdownIt":
    if find_spec("markdown_it") is None:
        raise MissingExtraError("markdown-it-py", "annotate")
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    return parser.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
