"""The forms in which pairs of answers are published, each as a row of the `preference` schema.

    prompt, chosen, rejected          texts                       RewardBench, many others
    prompt, chosen, rejected          texts and conversations     UltraFeedback's binarised form
    chosen, rejected                  conversations               TRL's implicit prompt
    chosen, rejected                  "Human: ... Assistant: ..." Anthropic's helpful and harmless
    prompt, a, b, p_a, annotator      our own

What is in none of these forms is left as it is, for the schema to say what is wrong with it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["as_preference"]

Row = dict[str, Any]
Conversation = list[dict[str, Any]]

_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def as_preference(row: Mapping[str, Any]) -> Row:
    """The row with messages as its prompt and texts as its answers.

    An id is made of prompt and answers where there is none, so that a row has the same wherever
    it stands, and the prompt's of what it says; `subset` becomes the category.
    """
    found = {key: value for key, value in row.items() if value is not None}
    if "chosen" in found and "rejected" in found:
        found |= _two_conversations(found)
    if isinstance(found.get("prompt"), str):
        found["prompt"] = [{"role": "user", "content": found["prompt"]}]
    if isinstance(found.get("subset"), str):
        found.setdefault("category", found["subset"])
    if "chosen" in found:
        found.setdefault("prompt_id", _digest(found.get("prompt")))
    texts = [found.get(key) for key in ("prompt", "chosen", "rejected", "a", "b")]
    name = found.get("id", _digest(texts))
    found["id"] = str(name) if isinstance(name, int) else name
    return found


def _two_conversations(row: Row) -> Row:
    """The prompt that both answer and the two answers, where both are conversations."""
    chosen, rejected = _conversation(row["chosen"], row), _conversation(row["rejected"], row)
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        return {}
    last = chosen[-1], rejected[-1]
    if any(message.get("role") != "assistant" for message in last):
        return {}
    texts = {"chosen": last[0].get("content"), "rejected": last[1].get("content")}
    before = chosen[:-1]
    return texts | {"prompt": before} if before else texts


def _conversation(value: Any, row: Row) -> Conversation | None:
    if isinstance(value, str) and "prompt" not in row:
        parts = _SPEAKER.split(value)[1:]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [{"role": _ROLES[who], "content": said.strip()} for who, said in pairs]
    if isinstance(value, list) and all(isinstance(message, Mapping) for message in value):
        return [{key: message.get(key) for key in ("role", "content")} for message in value]
    return None


def _digest(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
