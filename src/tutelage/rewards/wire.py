"""What a reward service and those who ask it say to each other.

    GET  /health       {"status": "ok"}                                       needs no token
    GET  /v1/version   {"name", "version", "max_items", "max_bytes"}
    POST /v1/score     {"items": [{"id", "prompt", "completion"}, ...]}
                       {"version", "scores": [{"id", "status", "value", "notes"}, ...]}

Scores are found by the id of their item: their order says nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.records import Completion, Prompt, Score, ScoreStatus, StopReason

__all__ = ["SCORE_PATH", "VERSION_PATH", "item_of", "match_scores", "read_item", "score_row"]

VERSION_PATH = "/v1/version"
SCORE_PATH = "/v1/score"
_LONGEST_NOTE = 1000
"""Characters of a service's reason that are kept."""


def item_of(prompt: Prompt, completion: Completion) -> dict[str, Any]:
    """All that a service learns of a completion: what the policy knew stays here."""
    return {
        "prompt": prompt.to_json(),
        "completion": {
            "text": completion.text,
            "tokens": list(completion.tokens),
            "stop": completion.stop.value,
        },
    }


def read_item(row: Mapping[str, Any]) -> tuple[Prompt, Completion]:
    """Inverse of `item_of`; the completion has no log-probabilities.

    Raises:
        KeyError, TypeError, ValueError: the row is no item.
    """
    prompt, sent = Prompt.from_json(row["prompt"]), row["completion"]
    text, tokens = sent["text"], tuple(sent["tokens"])
    if not isinstance(text, str) or not all(isinstance(token, int) for token in tokens):
        raise TypeError("text is a string, tokens are whole numbers")
    return prompt, Completion(prompt.id, tokens, (), text, StopReason(sent["stop"]))


def score_row(item: str, score: Score) -> dict[str, Any]:
    """A score with the id of its item; that of a failed one is null."""
    value = score.value if score.ok else None
    return {"id": item, "status": score.status.value, "value": value, "notes": score.notes}


def match_scores(items: Sequence[str], rows: Sequence[Any]) -> list[Score]:
    """One score per item, in the items' order, whatever the order of the rows.

    An item without a row, or with several, has failed, and no other with it; a row of no item is
    left aside.
    """
    found: dict[str, list[Mapping[str, Any]]] = {item: [] for item in items}
    for row in rows:
        if isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"] in found:
            found[row["id"]].append(row)
    return [_only_score(found[item]) for item in items]


def _only_score(rows: Sequence[Mapping[str, Any]]) -> Score:
    if not rows:
        return Score.failed(ScoreStatus.ERROR, "the service gave no score with its id")
    if len(rows) > 1:
        return Score.failed(ScoreStatus.ERROR, f"the service gave {len(rows)} scores with its id")
    return _read_score(rows[0])


def _read_score(row: Mapping[str, Any]) -> Score:
    status, value = row.get("status"), row.get("value")
    notes = str(row.get("notes", ""))[:_LONGEST_NOTE]
    if status not in list(ScoreStatus):
        odd = f"the service's status is {status!r}"[:_LONGEST_NOTE]
        return Score.failed(ScoreStatus.ERROR, odd)
    if status != ScoreStatus.OK:
        return Score.failed(ScoreStatus(status), notes)
    if isinstance(value, bool) or not isinstance(value, int | float):
        odd = f"the service's score is {value!r}, expected a number"[:_LONGEST_NOTE]
        return Score.failed(ScoreStatus.ERROR, odd)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return Score.failed(ScoreStatus.NOT_FINITE, f"the service's score is {number}")
    return Score(number)
