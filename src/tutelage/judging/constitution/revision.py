"""Answers criticised and revised under principles: the supervised phase of constitutional AI.

    prompt, answer ──critique under principle 1──> critique ──revise──> revision 1
                         └──────<── the revision is the next round's answer ──<──┘
    last revision ──> Demonstration        all of it ──> Transcript

Source: Bai et al. 2022 (arXiv:2212.08073), section 3.1. Departures: no principle comes twice for a
prompt before all have come once, and a round sees the answer it revises but not the earlier rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from tutelage.data.text import control_characters, normalize
from tutelage.errors import GenerationError
from tutelage.judging.constitution.document import Constitution, Principle
from tutelage.judging.constitution.writer import Conversation, Writer, with_preamble
from tutelage.records import Demonstration, Message, Prompt

__all__ = ["Revision", "Transcript", "answer_prompts", "revise"]

_NEW_ANSWER = "Write the new answer and nothing else."


@dataclass(frozen=True, slots=True)
class Revision:
    """One round: what was asked for, what was found, what was written."""

    principle: str
    """Its id."""
    critique: str
    text: str
    """The revised answer."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """How an answer came about."""

    prompt: Prompt
    answer: str
    """The first answer, before any critique."""
    revisions: tuple[Revision, ...] = ()
    failure: str = ""
    """Why it could not be finished; such a transcript gives no demonstration."""

    @property
    def text(self) -> str:
        """The newest answer."""
        return self.revisions[-1].text if self.revisions else self.answer

    @property
    def changed(self) -> bool:
        """Whether the newest answer differs from the first, white space aside."""
        return normalize(self.text) != normalize(self.answer)

    def demonstration(self) -> Demonstration:
        """The prompt with the newest answer."""
        answer = Message("assistant", self.text)
        prompt = self.prompt
        return Demonstration(prompt.id, (*prompt.messages, answer), prompt.source, prompt.category)

    def to_json(self) -> dict[str, Any]:
        """The prompt's fields, every text in the order of writing, and the failure if any."""
        row = {
            **self.prompt.to_json(),
            "answer": self.answer,
            "revisions": [
                {"principle": each.principle, "critique": each.critique, "revision": each.text}
                for each in self.revisions
            ],
        }
        return row | ({"failure": self.failure} if self.failure else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            prompt=Prompt.from_json(row),
            answer=row["answer"],
            revisions=tuple(
                Revision(each["principle"], each["critique"], each["revision"])
                for each in row["revisions"]
            ),
            failure=row.get("failure") or "",
        )


def answer_prompts(writer: Writer, prompts: Sequence[Prompt]) -> list[Transcript]:
    """First answers by the writer itself, without the constitution."""
    written = _write(writer, [prompt.messages for prompt in prompts])
    return [
        Transcript(prompt, "", failure=f"first answer: {text}")
        if isinstance(text, GenerationError)
        else Transcript(prompt, text)
        for prompt, text in zip(prompts, written, strict=True)
    ]


def revise(
    writer: Writer,
    constitution: Constitution,
    transcripts: Sequence[Transcript],
    *,
    rounds: int,
    seed: int,
) -> list[Transcript]:
    """Criticises and revises each answer `rounds` times.

    The principles of a prompt depend on the seed and its id alone: neither the order nor the size
    of a batch changes them.

    Args:
        writer: who criticises and revises.
        constitution: whose principles are drawn.
        transcripts: first answers; those that failed are passed through.
        rounds: critiques and revisions of each answer.
        seed: of the draws.
    """
    current = list(transcripts)
    for number in range(rounds):
        going = [place for place, each in enumerate(current) if not each.failure]
        drawn = [_principle(constitution, current[i].prompt, number, seed) for i in going]
        rows = [current[i] for i in going]
        for place, after in zip(
            going, _round(writer, constitution.preamble, rows, drawn, number + 1), strict=True
        ):
            current[place] = after
    return current


def _principle(constitution: Constitution, prompt: Prompt, number: int, seed: int) -> Principle:
    """The principle of a prompt's round: the next in its order, over and over."""
    order = constitution.order(f"{seed}/{prompt.id}")
    return order[number % len(order)]


def _round(
    writer: Writer,
    preamble: str,
    rows: Sequence[Transcript],
    principles: Sequence[Principle],
    number: int,
) -> list[Transcript]:
    """One critique and one revision of each."""
    asked = [
        with_preamble(preamble, _criticise(row, principle))
        for row, principle in zip(rows, principles, strict=True)
    ]
    critiques = _write(writer, asked)
    told = [
        None if isinstance(critique, GenerationError) else _mend(messages, critique, principle)
        for messages, critique, principle in zip(asked, critiques, principles, strict=True)
    ]
    written = iter(_write(writer, [messages for messages in told if messages is not None]))
    after = []
    for row, principle, critique in zip(rows, principles, critiques, strict=True):
        if isinstance(critique, GenerationError):
            after.append(replace(row, failure=f"critique {number} ({principle.id}): {critique}"))
            continue
        text = next(written)
        if isinstance(text, GenerationError):
            after.append(replace(row, failure=f"revision {number} ({principle.id}): {text}"))
            continue
        revision = Revision(principle.id, critique, text)
        after.append(replace(row, revisions=(*row.revisions, revision)))
    return after


def _criticise(row: Transcript, principle: Principle) -> Conversation:
    return (
        *row.prompt.messages,
        Message("assistant", row.text),
        Message("user", principle.critique),
    )


def _mend(messages: Conversation, critique: str, principle: Principle) -> Conversation:
    request = f"{principle.revision}\n\n{_NEW_ANSWER}"
    return (*messages, Message("assistant", critique), Message("user", request))


def _write(writer: Writer, conversations: Sequence[Conversation]) -> list[str | GenerationError]:
    """What the writer writes, with errors in the place of texts that no demonstration may hold."""
    if not conversations:
        return []
    written = list(writer(conversations))
    if len(written) != len(conversations):
        raise GenerationError(
            f"{writer.name} wrote {len(written)} texts for {len(conversations)} conversations: "
            "expected one for each, or the error for which there is none"
        )
    return [_usable(text) for text in written]


def _usable(text: str | GenerationError) -> str | GenerationError:
    if isinstance(text, GenerationError):
        return text
    if not text.strip():
        return GenerationError("nothing was written")
    if odd := control_characters(text):
        return GenerationError(f"the text holds control characters ({', '.join(odd)})")
    return text.strip()
