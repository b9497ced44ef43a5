"""The store of preferences: every judgement ever made, none changed afterwards.

    import, judges ──add──┐                              ┌──preferences──> reward model, export
                          ├──> events (append-only) ─────┤
    annotation page ─record                              └──events──> history, audit

SQLite by default, in a file that several processes may write at once; PostgreSQL by URL. A batch
is added whole or not at all, so a process may be killed at any moment and run again: what is
there already is not added twice. Who changes their mind adds an event that takes the place of the
one before it (`tutelage.feedback.events`).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import Connection, Row, Select, and_, exists, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from tutelage.errors import DataError
from tutelage.feedback.database import (
    EVENTS,
    begin_writing,
    create_tables,
    has_earlier_table,
    has_tables,
    open_engine,
)
from tutelage.feedback.events import FLAGS, WORDS, ConflictError, Event, StaleEventError
from tutelage.feedback.identity import comparison_key
from tutelage.records import Comparison, Preference

__all__ = ["PreferenceStore"]

_CHUNK = 400
"""Keys per query, below the number of variables that old SQLite versions allow."""
_ROWS_AT_ONCE = 1000
"""Rows in memory while all are read."""

Pair = tuple[str, int]
"""A comparison's id in a round, which names one pair of texts."""


class PreferenceStore:
    """Preferences in a database; of each annotator, comparison and round the newest word counts.

        with PreferenceStore("runs/quickstart/preferences.db") as store:
            store.add(preferences)

    Every operation raises `DataError` when the database cannot be used.
    """

    def __init__(self, location: str | Path, *, create: bool = True) -> None:
        """Opens the store.

        Args:
            location: a file for SQLite, or a database URL such as `postgresql://host/name`.
            create: make a file that is missing, and a table in a database without one.
        """
        self._engine = open_engine(location, create=create)
        self.name = self._engine.url.render_as_string(hide_password=True)
        """The database's URL, for messages."""
        with self._reading() as connection:
            ready = has_tables(connection)
            known = ready or has_earlier_table(connection)
        if not known and not create:
            raise DataError(f"{self.name} is a database without a preference store")
        if not ready:
            with self.transaction() as connection:
                earlier = map(_preference, create_tables(connection))
                rows = [_row(Event.judgement(preference), 1) for preference in earlier]
                if rows:
                    connection.execute(insert(EVENTS), rows)

    def add(
        self,
        preferences: Iterable[Preference],
        *,
        revise: bool = False,
        connection: Connection | None = None,
    ) -> int:
        """Appends preferences in one transaction and returns how many were new.

        One that says what its annotator said before of the comparison in the round is passed over.

        Args:
            preferences: judgements, in the order in which they were made.
            revise: let another judgement under the same comparison, annotator and round take the
                place of the one before it.
            connection: a `transaction` that it shall be part of; without, one of its own.

        Raises:
            ConflictError: another judgement is there already and `revise` is not set, or the
                comparison has other texts. Nothing is added.
        """
        added = 0
        with self._joined(connection) as joined:
            remaining = iter(preferences)
            while chunk := list(islice(remaining, _CHUNK)):
                added += _add_chunk(joined, chunk, revise)
        return added

    def record(
        self, event: Event, *, expected: int | None = None, connection: Connection | None = None
    ) -> Event:
        """Appends one event and returns it with its version and place.

        The annotator's word given again is not added, and neither is a flag: it is returned as it
        stands, so that a client may repeat what it has had no answer to.

        Args:
            event: what an annotator did.
            expected: the version that the annotator saw, 0 for none; refused where it is not the
                newest.
            connection: a `transaction` that it shall be part of; without, one of its own.

        Raises:
            StaleEventError: the newest version is not `expected`; it holds the newest event.
            ConflictError: the comparison has other texts in this round.
        """
        with self._joined(connection) as joined:
            alike = _newest(joined, event.key, WORDS if event.action in WORDS else FLAGS)
            if alike is not None and alike.says_what(event):
                return alike
            current = _newest(joined, event.key, (*WORDS, *FLAGS))
            version = 0 if current is None else current.version
            if expected is not None and expected != version:
                raise StaleEventError(event, expected, current)
            if event.preference is not None:
                _require_same_texts(_texts(joined, event), event.preference)
            row = _row(event, version + 1)
            sequence = joined.execute(insert(EVENTS).returning(EVENTS.c.sequence), row).scalar_one()
        return replace(event, version=version + 1, sequence=sequence)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write of several steps: all or nothing, while nobody else writes."""
        with self._failures_named(), self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            with connection.begin():
                begin_writing(connection)
                yield connection

    def preferences(
        self, *, kind: str | None = None, annotator: str | None = None
    ) -> list[Preference]:
        """What stands, in the order it came: all of it, or that of one kind or annotator."""
        return list(self.iterate(kind=kind, annotator=annotator))

    def iterate(
        self, *, kind: str | None = None, annotator: str | None = None
    ) -> Iterator[Preference]:
        """`preferences` one by one, as they stood when the first was read."""
        query = _standing(select(EVENTS.c.record)).order_by(EVENTS.c.sequence)
        if kind is not None:
            query = query.where(EVENTS.c.kind == kind)
        if annotator is not None:
            query = query.where(EVENTS.c.annotator == annotator)
        with self._reading() as connection:
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            for record in streamed.scalars(query):
                yield _preference(record)

    def same_comparisons(
        self, contents: Iterable[str], *, connection: Connection | None = None
    ) -> list[Preference]:
        """What stands about comparisons of these texts (`comparison_key`), whatever their ids."""
        wanted = sorted(set(contents))
        found: list[Preference] = []
        with self._reading() if connection is None else nullcontext(connection) as reading:
            for start in range(0, len(wanted), _CHUNK):
                some = EVENTS.c.content.in_(wanted[start : start + _CHUNK])
                query = _standing(select(EVENTS.c.record)).where(some)
                found += map(_preference, reading.scalars(query.order_by(EVENTS.c.sequence)))
        return found

    def events(self, *, comparison: str | None = None, annotator: str | None = None) -> list[Event]:
        """All that happened, in order, or what did to one comparison or by one annotator."""
        query = select(EVENTS).order_by(EVENTS.c.sequence)
        if comparison is not None:
            query = query.where(EVENTS.c.comparison == comparison)
        if annotator is not None:
            query = query.where(EVENTS.c.annotator == annotator)
        with self._reading() as connection:
            return [_event(row) for row in connection.execute(query)]

    def newest(
        self,
        comparison: str,
        annotator: str,
        round: int = 0,
        *,
        connection: Connection | None = None,
    ) -> Event | None:
        """The annotator's word on a comparison; flags are not asked for."""
        key = comparison, annotator, round
        with self._reading() if connection is None else nullcontext(connection) as reading:
            return _newest(reading, key, WORDS)

    def flagged(self) -> list[Event]:
        """The flags that nobody has taken back."""
        query = select(EVENTS).where(EVENTS.c.action == "flagged", ~_followed_by(FLAGS))
        with self._reading() as connection:
            return [_event(row) for row in connection.execute(query.order_by(EVENTS.c.sequence))]

    def judged(self, annotator: str, round: int = 0) -> frozenset[str]:
        """Ids of the comparisons an annotator has judged: what a resumed round leaves out."""
        query = _standing(select(EVENTS.c.comparison)).where(
            EVENTS.c.annotator == annotator, EVENTS.c.round == round
        )
        with self._reading() as connection:
            return frozenset(connection.scalars(query))

    def counts(
        self, by: Literal["source", "kind", "annotator", "round"] = "source"
    ) -> dict[str, int]:
        """Number of preferences per source of prompts, kind, annotator or round."""
        column = EVENTS.c[by]
        query = _standing(select(column, func.count())).group_by(column).order_by(column)
        with self._reading() as connection:
            return {str(name): int(count) for name, count in connection.execute(query)}

    def digest(self) -> str:
        """SHA-256 of what stands, in order: what a training on it depends on."""
        hashed = hashlib.sha256()
        for preference in self.iterate():
            hashed.update(json.dumps(preference.to_json(), sort_keys=True).encode() + b"\n")
        return hashed.hexdigest()

    def __len__(self) -> int:
        """Number of preferences."""
        query = _standing(select(func.count()).select_from(EVENTS))
        with self._reading() as connection:
            return int(connection.scalar(query) or 0)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _joined(self, connection: Connection | None) -> Iterator[Connection]:
        if connection is None:
            with self.transaction() as own:
                yield own
        else:
            with self._failures_named():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._failures_named(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise DataError(f"the preference store {self.name} failed: {reason}") from error


def _followed_by(actions: Sequence[str]) -> Any:
    """Whether the annotator has done one of `actions` to the comparison since."""
    later = EVENTS.alias()
    same = [later.c[name] == EVENTS.c[name] for name in ("comparison", "annotator", "round")]
    newer = later.c.version > EVENTS.c.version
    return exists().where(and_(*same, newer, later.c.action.in_(actions)))


def _standing(query: Select) -> Select:
    """The judgements whose annotators have said nothing else since."""
    return query.where(EVENTS.c.action == "judged", ~_followed_by(WORDS))


def _newest(
    connection: Connection, key: tuple[str, str, int], actions: Sequence[str]
) -> Event | None:
    """The newest event of some kinds under a key."""
    comparison, annotator, round = key
    query = select(EVENTS).where(
        EVENTS.c.comparison == comparison,
        EVENTS.c.annotator == annotator,
        EVENTS.c.round == round,
        EVENTS.c.action.in_(actions),
    )
    row = connection.execute(query.order_by(EVENTS.c.version.desc()).limit(1)).first()
    return None if row is None else _event(row)


def _add_chunk(connection: Connection, preferences: Sequence[Preference], revise: bool) -> int:
    events = [Event.judgement(preference) for preference in preferences]
    ids = sorted({event.comparison for event in events})
    known: dict[tuple[str, str, int], list[Preference]] = {}
    versions: dict[tuple[str, str, int], int] = {}
    texts: dict[Pair, Comparison] = {}
    query = select(EVENTS).where(EVENTS.c.comparison.in_(ids)).order_by(EVENTS.c.sequence)
    for earlier in map(_event, connection.execute(query)):
        versions[earlier.key] = earlier.version
        if earlier.preference is not None:
            known.setdefault(earlier.key, []).append(earlier.preference)
            pair = earlier.comparison, earlier.round
            texts.setdefault(pair, earlier.preference.comparison)
    rows = []
    for event, preference in zip(events, preferences, strict=True):
        _require_same_texts(texts, preference)
        said = known.setdefault(event.key, [])
        if any(_same_verdict(earlier, preference) for earlier in said):
            continue
        if said and not revise:
            raise ConflictError(_conflict(event, said[-1], preference), preference)
        versions[event.key] = versions.get(event.key, 0) + 1
        rows.append(_row(event, versions[event.key]))
        said.append(preference)
        texts.setdefault((event.comparison, event.round), preference.comparison)
    if rows:
        connection.execute(insert(EVENTS), rows)
    return len(rows)


def _texts(connection: Connection, event: Event) -> dict[Pair, Comparison]:
    """The texts that anybody has judged under the comparison's id in the event's round."""
    query = select(EVENTS).where(
        EVENTS.c.comparison == event.comparison,
        EVENTS.c.round == event.round,
        EVENTS.c.action == "judged",
    )
    row = connection.execute(query.limit(1)).first()
    known = None if row is None else _event(row).preference
    return {} if known is None else {(event.comparison, event.round): known.comparison}


def _require_same_texts(known: dict[Pair, Comparison], preference: Preference) -> None:
    """One id in one round is one pair of texts, in whatever order they were shown."""
    event = Event.judgement(preference)
    new, earlier = preference.comparison, known.get((event.comparison, event.round))
    if earlier is None:
        return
    same_prompt = new.prompt.messages == earlier.prompt.messages
    if not same_prompt or {new.a, new.b} != {earlier.a, earlier.b}:
        raise ConflictError(
            f"comparison {event.comparison!r} is there already in round {event.round} and the "
            "texts are not the same: give each pair of texts an id of its own",
            preference,
        )


def _same_verdict(first: Preference, second: Preference) -> bool:
    turned = first if first.comparison.a == second.comparison.a else first.swap()
    return math.isclose(turned.p_a, second.p_a, rel_tol=0.0, abs_tol=1e-9)


def _row(event: Event, version: int) -> dict[str, object]:
    preference = event.preference
    record = None
    if preference is not None:
        record = json.dumps(preference.to_json(), ensure_ascii=False)
    return {
        "comparison": event.comparison,
        "annotator": event.annotator,
        "round": event.round,
        "version": version,
        "action": event.action,
        "kind": preference.kind if preference else "",
        "source": preference.comparison.prompt.source if preference else "",
        "content": comparison_key(preference.comparison) if preference else "",
        "created": event.created,
        "note": event.note,
        "record": record,
    }


def _event(row: Row) -> Event:
    return Event(
        row.comparison,
        row.annotator,
        row.action,
        None if row.record is None else _preference(row.record),
        row.note,
        row.round,
        row.created,
        row.version,
        row.sequence,
    )


def _preference(record: str) -> Preference:
    return Preference.from_json(json.loads(record))


def _conflict(event: Event, known: Preference, new: Preference) -> str:
    turned = known if known.comparison.a == new.comparison.a else known.swap()
    return (
        f"comparison {event.comparison!r} already has a judgement of {event.annotator!r} in round "
        f"{event.round} (p_a {turned.p_a:g} there, {new.p_a:g} now): let the new one take its "
        "place (revise), or give it another round"
    )
