"""What lives on disk: prompts, completions, scores, comparisons and preferences.

    Prompt ──sampler──> Completion ──reward──> Score
       └── two completions ──> Comparison ──annotator or judge──> Preference

Plain frozen dataclasses without torch, so that judges, the annotation page and
`tutelage validate` run without it. Each has `to_json` and `from_json`; reading
files, with line numbers in the errors, is the business of `tutelage.data`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self

__all__ = [
    "CHECK_KEYS",
    "Comparison",
    "Completion",
    "Demonstration",
    "EncodedPrompt",
    "Message",
    "Preference",
    "Prompt",
    "Role",
    "Score",
    "ScoreStatus",
    "StopReason",
    "Turn",
    "exchanges",
]

CHECK_KEYS = (
    "choices",
    "tests",
    "setup",
    "prefix",
    "entry_point",
    "instruction_id_list",
    "kwargs",
)
"""Keys of the `verifiable` schema that tell how an answer is checked."""

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def to_json(self) -> dict[str, str]:
        """The chat-template form, `{"role", "content"}`."""
        return {"role": self.role, "content": self.content}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(row["role"], row["content"])


def _messages(rows: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message.from_json(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that waits for the assistant's answer, with its origin."""

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    category: str = ""
    reference: str | None = None
    """The right answer where one is known; never shown to the policy."""
    mode: Literal["chat", "continuation"] = "chat"
    """`continuation`: the single message is the beginning of a text, not a turn."""
    check: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What a verifier reads beside the reference (`CHECK_KEYS`); never shown to the policy."""

    @property
    def text(self) -> str:
        """The last message's content: what the completion answers or continues."""
        return self.messages[-1].content

    def to_json(self) -> dict[str, Any]:
        """The `prompts` schema; absent optional fields are left out."""
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": [message.to_json() for message in self.messages],
            "source": self.source,
            "category": self.category,
        }
        if self.reference is not None:
            row["reference"] = self.reference
        if self.mode != "chat":
            row["mode"] = self.mode
        return row | dict(self.check)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; unknown fields are ignored."""
        return cls(
            id=str(row["id"]),
            messages=_messages(row["prompt"]),
            source=row.get("source") or "",
            category=row.get("category") or "",
            reference=row.get("reference"),
            mode=row.get("mode") or "chat",
            check={key: row[key] for key in CHECK_KEYS if row.get(key) is not None},
        )


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt with the token ids the policy reads, generation prompt included."""

    prompt: Prompt
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to imitate: the last message is the assistant's target."""

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    category: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `sft` schema."""
        return {
            "id": self.id,
            "messages": [message.to_json() for message in self.messages],
            "category": self.category,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            id=str(row["id"]),
            messages=_messages(row["messages"]),
            source=row.get("source") or "",
            category=row.get("category") or "",
        )


class StopReason(StrEnum):
    """Why sampling ended."""

    STOP_TOKEN = "stop_token"
    """The policy wrote one of its stop tokens; that token is part of the completion."""
    LENGTH = "length"
    """The token limit cut the completion off: it is truncated."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the policy's answers in a conversation, and what came back."""

    start: int
    end: int
    """The answer is `tokens[start:end]` of its completion."""
    text: str
    """The answer, decoded without special tokens."""
    stop: StopReason
    reply: tuple[Message, ...] = ()
    """What was said to it. After the last turn nobody has read it: the turn limit came first."""
    reward: float = 0.0
    """What the environment gave for the answer."""

    def to_json(self) -> dict[str, Any]:
        """All fields; `stop` as its value."""
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "stop": self.stop.value,
            "reply": [message.to_json() for message in self.reply],
            "reward": self.reward,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            start=row["start"],
            end=row["end"],
            text=row["text"],
            stop=StopReason(row["stop"]),
            reply=_messages(row["reply"]),
            reward=row["reward"],
        )


def exchanges(prompt: Prompt, turns: Sequence[Turn]) -> list[tuple[Prompt, Turn]]:
    """Each answer of a conversation, with the conversation so far as the prompt it answers."""
    pairs = []
    messages = prompt.messages
    for turn in turns:
        pairs.append((replace(prompt, messages=messages), turn))
        messages = (*messages, Message("assistant", turn.text), *turn.reply)
    return pairs


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample, exactly as drawn: its tokens are what is trained on, never re-tokenised.

    That of a conversation has several turns. Between them stand the tokens of what was said to the
    policy, which it has read and not written.
    """

    prompt_id: str
    tokens: tuple[int, ...]
    """The sampled ids, stop token included when one was written."""
    logprobs: tuple[float, ...]
    """The sampler's log-probability of each token, at the sampling temperature; 0 of a token that
    was read."""
    text: str
    """The decoded tokens without special tokens: a view for rewards and people."""
    stop: StopReason
    policy_version: int = 0
    """Number of weight updates the sampler had received."""
    engine: str = ""
    turns: tuple[Turn, ...] = ()
    """The answers of a conversation; empty where the completion is one answer."""
    failure: str = ""
    """Why the environment could not go on: such a completion cannot be scored."""

    @property
    def truncated(self) -> bool:
        """Whether the token limit, not the policy, ended it."""
        return self.stop is StopReason.LENGTH

    @property
    def written(self) -> tuple[bool, ...]:
        """Which tokens the policy wrote."""
        if not self.turns:
            return (True,) * len(self.tokens)
        wrote = [False] * len(self.tokens)
        for turn in self.turns:
            wrote[turn.start : turn.end] = [True] * (turn.end - turn.start)
        return tuple(wrote)

    def to_json(self) -> dict[str, Any]:
        """All fields, `stop` as its value; those of conversations only where there are any."""
        row: dict[str, Any] = {
            "prompt_id": self.prompt_id,
            "tokens": list(self.tokens),
            "logprobs": list(self.logprobs),
            "text": self.text,
            "stop": self.stop.value,
            "policy_version": self.policy_version,
            "engine": self.engine,
        }
        if self.turns:
            row["turns"] = [turn.to_json() for turn in self.turns]
        if self.failure:
            row["failure"] = self.failure
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            prompt_id=str(row["prompt_id"]),
            tokens=tuple(row["tokens"]),
            logprobs=tuple(row["logprobs"]),
            text=row["text"],
            stop=StopReason(row["stop"]),
            policy_version=row.get("policy_version", 0),
            engine=row.get("engine", ""),
            turns=tuple(Turn.from_json(turn) for turn in row.get("turns", ())),
            failure=row.get("failure", ""),
        )


class ScoreStatus(StrEnum):
    """Whether a reward could be computed. Anything but `OK` masks the sample out."""

    OK = "ok"
    TIMEOUT = "timeout"
    ERROR = "error"
    UNSCORABLE = "unscorable"
    NOT_FINITE = "not_finite"
    """NaN or infinite: the reward was computed, and is no number to learn from."""


@dataclass(frozen=True, slots=True)
class Score:
    """A reward for a whole completion, and what it is made of."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Weighted contributions; they add up to `value` before clipping."""
    notes: str = ""
    status: ScoreStatus = ScoreStatus.OK
    turns: tuple[float, ...] = ()
    """What each turn of a conversation earned, which add up to `value`; empty where all of it was
    earned at the end."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What else is known of the score, for the log, such as how far an ensemble disagrees; it adds
    to nothing."""

    @property
    def ok(self) -> bool:
        """Whether `value` may be used."""
        return self.status is ScoreStatus.OK

    @classmethod
    def failed(cls, status: ScoreStatus, notes: str) -> Self:
        """A score that must not be used: its value is NaN, never 0."""
        return cls(float("nan"), {}, notes, status)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, before anyone has judged them."""

    prompt: Prompt
    a: str
    b: str
    id: str = ""

    def swap(self) -> Self:
        """The same comparison presented in the other order."""
        return replace(self, a=self.b, b=self.a)

    def to_json(self) -> dict[str, Any]:
        """The prompt's fields with `a` and `b`."""
        return {
            **self.prompt.to_json(),
            "id": self.id or self.prompt.id,
            "a": self.a,
            "b": self.b,
            "prompt_id": self.prompt.id,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        prompt = Prompt.from_json({**row, "id": row.get("prompt_id", row["id"])})
        return cls(prompt, row["a"], row["b"], str(row["id"]))


@dataclass(frozen=True, slots=True)
class Preference:
    """A judged comparison. One type for people, judge models, ensembles and simulation."""

    comparison: Comparison
    p_a: float
    """Probability in [0, 1] that `a` is better; 0.5 is a tie."""
    annotator: str
    """Who decided: a person's id, or the judge's name and version."""
    kind: Literal["human", "ai", "verifier", "synthetic"] = "human"
    rationale: str = ""
    seconds: float | None = None
    """How long the decision took, where known."""
    created: str = ""
    """UTC time in ISO 8601."""
    round: int = 0
    """Which round of collection the comparison belongs to."""
    strength: float | None = None
    """How much better the better answer is, on the annotators' own scale; None where not asked."""
    weight: float = 1.0
    """How much the judgement counts: above 1 where several people agree, below 1 where doubtful."""
    orders: tuple[float, float] | None = None
    """Probability that `a` is better where `a` was shown first, and where it was shown second; None
    where it was not asked both ways."""
    confidence: float | None = None
    """How sure the annotator says to be, in [0, 1]; None where not asked."""
    criteria: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Probability that `a` is better by each criterion that was asked about, such as `honest`."""
    instructions: str = ""
    """SHA-256 of what a judge was told (rubric, principles, form of the question), or of the
    guidelines that people were shown."""

    def __post_init__(self) -> None:
        """Refuses a label that is no probability and a weight that is not positive."""
        stated = [self.p_a, *(self.orders or ()), *self.criteria.values()]
        for probability in stated:
            if not 0.0 <= probability <= 1.0:
                raise ValueError(f"p_a is a probability in [0, 1], found {probability!r}")
        if self.confidence is not None and not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence lies in [0, 1], found {self.confidence!r}")
        if not self.weight > 0.0:
            raise ValueError(f"weight must be positive, found {self.weight!r}: leave the pair out")

    def swap(self) -> Self:
        """The same judgement with the answers exchanged."""
        return replace(
            self,
            comparison=self.comparison.swap(),
            p_a=1.0 - self.p_a,
            orders=self.orders and (1.0 - self.orders[1], 1.0 - self.orders[0]),
            criteria={name: 1.0 - p_a for name, p_a in self.criteria.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """The comparison's fields and the judgement's, in one flat row; what was added to the
        record later stands there only where it says something.
        """
        row = {
            **self.comparison.to_json(),
            "p_a": self.p_a,
            "annotator": self.annotator,
            "kind": self.kind,
            "rationale": self.rationale,
            "seconds": self.seconds,
            "created": self.created,
            "round": self.round,
        }
        if self.strength is not None:
            row["strength"] = self.strength
        if self.weight != 1.0:
            row["weight"] = self.weight
        if self.orders is not None:
            row["orders"] = list(self.orders)
        for name in ("confidence", "criteria", "instructions"):
            if (value := getattr(self, name)) not in (None, {}, ""):
                row[name] = dict(value) if name == "criteria" else value
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Reads our own rows and the `chosen`/`rejected` rows of public data sets."""
        strength = None if row.get("strength") is None else float(row["strength"])
        weight = float(row.get("weight", 1.0))
        if "chosen" in row:
            prompt = Prompt.from_json({**row, "id": row.get("prompt_id", row["id"])})
            who = str(row.get("feedback") or "human")
            kind: Literal["human", "ai", "verifier"] = "human"
            if who == "verifier" or who.startswith("ai"):
                kind = "verifier" if who == "verifier" else "ai"
            comparison = Comparison(prompt, row["chosen"], row["rejected"], str(row["id"]))
            return cls(comparison, 1.0, who, kind, strength=strength, weight=weight)
        return cls(
            comparison=Comparison.from_json(row),
            p_a=float(row["p_a"]),
            annotator=row["annotator"],
            kind=row.get("kind", "human"),
            rationale=row.get("rationale") or "",
            seconds=row.get("seconds"),
            created=row.get("created") or "",
            round=row.get("round", 0),
            strength=strength,
            weight=weight,
            orders=None if row.get("orders") is None else _both(row["orders"]),
            confidence=row.get("confidence"),
            criteria=dict(row.get("criteria") or {}),
            instructions=row.get("instructions") or "",
        )


def _both(orders: Sequence[float]) -> tuple[float, float]:
    first, second = orders
    return float(first), float(second)
