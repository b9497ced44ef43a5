import random
import re
from collections.abc import Callable

import pytest

from tutelage.errors import ConfigError
from tutelage.worlds.helpdesk import Split, WorldSpec, prompts
from tutelage.worlds.helpdesk.accounts import (
    TEST_NAMES,
    decide,
    draw_account,
    read_account,
    split_of,
    write_account,
)
from tutelage.worlds.helpdesk.grammar import ATTACK_STYLES, LOOKALIKES, MALICIOUS, NOTES, QUESTIONS
from tutelage.worlds.helpdesk.reading import SEPARATOR, count_words, read_prompt

SPLITS: tuple[Split, ...] = ("train", "held_out", "rl", "test")
PRESETS = [WorldSpec.nano, WorldSpec.micro]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("split", SPLITS)
def test_prompts_are_short(preset: Callable[[], WorldSpec], split: Split) -> None:
    lengths = [count_words(prompt.text) for prompt in prompts(preset(), split, 500, 0)]
    assert max(lengths) <= 40
    # The design asks for about 28 words; splits differ by the wordings they use.
    assert 25 <= sum(lengths) / len(lengths) <= 31


def test_the_same_seed_draws_the_same_prompts_and_another_seed_others() -> None:
    spec = WorldSpec.micro()
    assert prompts(spec, "rl", 50, 1) == prompts(spec, "rl", 50, 1)
    assert prompts(spec, "rl", 50, 1) != prompts(spec, "rl", 50, 2)
    assert prompts(spec, "rl", 50, 1) != prompts(WorldSpec.micro(seed=1), "rl", 50, 1)


def test_more_prompts_continue_fewer() -> None:
    assert prompts(WorldSpec.nano(), "rl", 80, 0)[:20] == prompts(WorldSpec.nano(), "rl", 20, 0)


def test_ids_and_texts_are_unique_within_a_draw() -> None:
    drawn = prompts(WorldSpec.nano(), "train", 2000, 0)
    assert len({prompt.id for prompt in drawn}) == len({prompt.text for prompt in drawn}) == 2000


def test_each_split_has_its_own_accounts() -> None:
    rng = random.Random(0)
    spec = WorldSpec.nano()
    for split in SPLITS:
        assert all(split_of(draw_account(spec, split, rng)) == split for _ in range(50))
    drawn = {split: _records(spec, split) for split in SPLITS}
    for index, split in enumerate(SPLITS):
        for other in SPLITS[index + 1 :]:
            assert not drawn[split] & drawn[other]


def _records(spec: WorldSpec, split: Split) -> set[str]:
    accounts = (read_prompt(prompt).account for prompt in prompts(spec, split, 400, 3))
    return {write_account(account, sorted(account)) for account in accounts}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_test_split_has_names_and_wordings_of_its_own(
    preset: Callable[[], WorldSpec],
) -> None:
    held_out = [w for family in _families() for w in family.test]
    seen = [w for family in _families() for w in family.train if w]
    for prompt in prompts(preset(), "test", 300, 0):
        account, _, question = prompt.text.partition(SEPARATOR)
        assert read_account(account)["name"] in TEST_NAMES
        assert _is_worded(question, held_out)
        assert not _is_worded(question, seen)
    for prompt in prompts(preset(), "train", 300, 0):
        account, _, question = prompt.text.partition(SEPARATOR)
        assert read_account(account)["name"] not in TEST_NAMES
        assert not _is_worded(question, held_out)


def _families() -> list:
    return [*QUESTIONS.values(), *MALICIOUS.values(), *LOOKALIKES.values(), ATTACK_STYLES, NOTES]


def _is_worded(question: str, wordings: list[str]) -> bool:
    """Whether the question is one of the wordings, or begins with one as an attack style."""
    question = re.sub(r"\$\d+", "{amount}", question)
    styles = tuple(w for w in wordings if w in ATTACK_STYLES.train + ATTACK_STYLES.test)
    return question in wordings or question.startswith(styles)


def test_no_wording_is_both_seen_and_held_out() -> None:
    for family in _families():
        assert not set(family.train) & set(family.test)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_category_occurs_in_its_share(preset: Callable[[], WorldSpec]) -> None:
    spec = preset()
    drawn = [prompt.category for prompt in prompts(spec, "train", 3000, 0)]
    shares = {name: drawn.count(name) / len(drawn) for name in set(drawn)}
    assert set(shares) == {*spec.intents, "malicious", "lookalike"}
    # Three standard errors of a share of 0.15 in 3000 draws: 0.02.
    assert shares["malicious"] == pytest.approx(0.15, abs=0.02)
    assert shares["lookalike"] == pytest.approx(0.15, abs=0.02)
    each = 0.7 / len(spec.intents)
    assert all(shares[intent] == pytest.approx(each, abs=0.02) for intent in spec.intents)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_record_always_holds_the_reference(preset: Callable[[], WorldSpec]) -> None:
    for prompt in prompts(preset(), "rl", 500, 0):
        if prompt.category in ("malicious", "lookalike"):
            assert prompt.reference is None
        elif prompt.reference not in ("yes", "no"):
            assert prompt.reference
            assert prompt.reference in prompt.text.partition(SEPARATOR)[0]


@pytest.mark.parametrize(
    ("intent", "account", "decision"),
    [
        ("refund", {"tenure": "14 days", "status": "active"}, "yes"),
        ("refund", {"tenure": "15 days", "status": "active"}, "no"),
        ("refund", {"tenure": "3 days", "status": "refunded"}, "no"),
        ("waiver", {"waiver": "never"}, "yes"),
        ("waiver", {"waiver": "12 months"}, "yes"),
        ("waiver", {"waiver": "9 months"}, "no"),
        ("change", {"status": "active"}, "yes"),
        ("change", {"status": "overdue"}, "no"),
        ("credit", {"outage": "4h"}, "yes"),
        ("credit", {"outage": "3h"}, "no"),
        ("credit", {"outage": "long"}, None),
        ("credit", {}, None),
        ("amount", {"bill": "$47"}, None),
    ],
)
def test_the_rules_of_the_company(intent: str, account: dict, decision: str | None) -> None:
    assert decide(intent, account) == decision


def test_both_decisions_are_common_for_each_rule() -> None:
    decisions: dict[str, list] = {}
    for prompt in prompts(WorldSpec.micro(), "train", 4000, 0):
        if prompt.reference in ("yes", "no"):
            decisions.setdefault(prompt.category, []).append(prompt.reference == "yes")
    assert len(decisions) == 4
    for said_yes in decisions.values():
        assert 0.25 < sum(said_yes) / len(said_yes) < 0.75


def test_writing_and_reading_an_account_are_inverse() -> None:
    account = draw_account(WorldSpec.micro(), "train", random.Random(0))
    assert read_account(write_account(account, sorted(account))) == account


@pytest.mark.parametrize(
    "change",
    [
        {"intents": ("amount", "weather")},
        {"intents": ()},
        {"p_right": 1.5},
        {"p_malicious": 0.6, "p_lookalike": 0.5},
        {"num_fields": 9},
        {"num_amounts": 1},
    ],
)
def test_an_impossible_world_is_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        WorldSpec(**change)
