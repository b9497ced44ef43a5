"""Account records: drawing them, writing them, reading them back, and the company's rules.

draw_account ──> {"name": "ana", "bill": "$47", ...} ──write_account──> "bill $47; name ana"
                              ^                                               │
                              └──────────────── read_account ─────────────────┘
"""

import hashlib
import random
from collections.abc import Iterable, Mapping
from functools import lru_cache

from tutelage.worlds.helpdesk.spec import Split, WorldSpec

__all__ = [
    "FIELDS",
    "MONTHS",
    "PLANS",
    "P_INVENTED_NAME",
    "REASONS",
    "TEST_NAMES",
    "TRAIN_NAMES",
    "decide",
    "draw_account",
    "field_values",
    "fingerprint",
    "read_account",
    "split_of",
    "write_account",
]

Account = dict[str, str]

TRAIN_NAMES = (
    "ana", "ben", "carla", "dan", "emma", "finn", "greta", "hugo", "ines", "jon", "kim", "leo",
    "mia", "nils", "olga", "paul", "rosa", "sam", "tara", "uwe",
)  # fmt: skip
TEST_NAMES = ("vera", "walt", "xenia", "yara", "zoe", "igor")
P_INVENTED_NAME = 0.3
"""Share of records outside the test split whose customer has an invented name. A tokenizer cuts
an unseen name into pieces; a model that has only met whole names loses its place in the record."""
PLANS = ("basic", "plus", "family", "student", "flex", "gold")
REASONS = ("late", "roaming", "overage", "setup", "repair", "paper")
MONTHS = ("jan", "mar", "may", "jul", "sep", "nov")

_DAYS = (2, 5, 8, 11, 14, 17, 19, 20, 23, 25, 26, 28)
_TENURES = (3, 6, 9, 12, 14, 15, 21, 30, 60, 90)
_WAIVERS = ("never", "2 months", "5 months", "9 months", "12 months", "18 months")
_EXITS = ("$110", "$125", "$140", "$155", "$170", "$185")
_OUTAGES = ("1h", "2h", "3h", "4h", "6h", "9h")
_STATUSES = ("active", "paused", "overdue", "refunded")
_STATUS_WEIGHTS = (5, 2, 2, 3)

FIELDS = (
    "name", "plan", "bill", "due", "data", "fee", "tenure", "paid", "status", "waiver", "exit",
    "outage", "note",
)  # fmt: skip


@lru_cache(maxsize=64)
def field_values(spec: WorldSpec, field: str) -> tuple[str, ...]:
    """All values `field` can take in this world; names are those of training."""
    rng = random.Random(f"helpdesk values {field}")
    if field == "bill":
        return tuple(f"${n}" for n in sorted(rng.sample(range(21, 99), spec.num_amounts)))
    if field == "data":
        return tuple(f"{n}gb" for n in sorted(rng.sample(range(2, 66, 2), spec.num_usages)))
    if field in ("due", "paid"):
        dates = [f"{month} {day}" for month in MONTHS for day in _DAYS]
        return tuple(random.Random("helpdesk dates").sample(dates, spec.num_dates))
    return {
        "name": TRAIN_NAMES,
        "plan": PLANS,
        "fee": REASONS,
        "tenure": tuple(f"{n} days" for n in _TENURES),
        "status": _STATUSES,
        "waiver": _WAIVERS,
        "exit": _EXITS,
        "outage": _OUTAGES,
    }[field]


def draw_account(spec: WorldSpec, split: Split, rng: random.Random) -> Account:
    """A random account of `split`; those of the test split have names of their own."""
    while True:
        account = {field: rng.choice(field_values(spec, field)) for field in spec.record_fields}
        if "status" in account:
            account["status"] = rng.choices(_STATUSES, _STATUS_WEIGHTS)[0]
        if split == "test":
            account["name"] = rng.choice(TEST_NAMES)
        elif rng.random() < P_INVENTED_NAME:
            account["name"] = _invented_name(rng)
        if split_of(account) == split:
            return account


def _invented_name(rng: random.Random) -> str:
    """Two syllables that nobody in the test split is called."""
    while True:
        syllables = [rng.choice("bdfghjklmnprstvwxyz") + rng.choice("aeiou") for _ in range(2)]
        name = "".join(syllables) + rng.choice(("", *"lmnrst"))
        if name not in TEST_NAMES:
            return name


def fingerprint(account: Mapping[str, str], purpose: str) -> float:
    """A number in [0, 1) that depends on the fields' values but not on their order."""
    text = purpose + "".join(f";{field} {account[field]}" for field in sorted(account))
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(account: Mapping[str, str]) -> Split:
    """The split an account belongs to: 60 % train, 10 % held out, 20 % RL, 10 % test."""
    position = fingerprint(account, "split")
    if position < 0.6:
        return "train"
    if position < 0.7:
        return "held_out"
    return "rl" if position < 0.9 else "test"


def write_account(account: Mapping[str, str], order: Iterable[str]) -> str:
    """The record as a prompt shows it: `bill $47; name ana`."""
    return "; ".join(f"{field} {account[field]}" for field in order)


def read_account(text: str) -> Account:
    """Inverse of `write_account`; parts that are no known field are skipped."""
    account: Account = {}
    for part in text.split(";"):
        field, _, value = part.strip().partition(" ")
        if field in FIELDS and value:
            account[field] = value
    return account


def decide(intent: str, account: Mapping[str, str]) -> str | None:
    """What the company's rules say to a rule intent: "yes", "no", or None without the fields.

    - refund: at most 14 days since the start, and not refunded before;
    - waiver: none within the last 12 months;
    - change: the account is active;
    - credit: an outage of 4 hours or more.
    """
    try:
        if intent == "refund":
            allowed = _number(account["tenure"]) <= 14 and account["status"] != "refunded"
        elif intent == "waiver":
            allowed = account["waiver"] == "never" or _number(account["waiver"]) >= 12
        elif intent == "change":
            allowed = account["status"] == "active"
        elif intent == "credit":
            allowed = _number(account["outage"]) >= 4
        else:
            return None
    except (KeyError, ValueError):
        return None
    return "yes" if allowed else "no"


def _number(value: str) -> int:
    return int(value.split()[0].removesuffix("h"))
