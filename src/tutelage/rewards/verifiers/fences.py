"""Fenced blocks of Markdown in an answer."""

from dataclasses import dataclass

__all__ = ["Block", "fenced_blocks"]


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences."""

    language: str
    """The word behind the opening fence, in small letters."""
    code: str
    alone: bool
    """Nothing but white space stands around it in the answer."""


def fenced_blocks(text: str) -> list[Block]:
    """The blocks in order; one that is never closed goes to the end."""
    lines = text.splitlines(keepends=True)
    blocks: list[tuple[str, list[str]]] = []
    outside: list[str] = []
    inside: list[str] | None = None
    for line in lines:
        if line.lstrip().startswith("```"):
            if inside is None:
                inside = []
                blocks.append((line.strip().lstrip("`").strip().lower(), inside))
            else:
                inside = None
        else:
            (outside if inside is None else inside).append(line)
    alone = not "".join(outside).strip()
    return [Block(language, "".join(code), alone) for language, code in blocks]
