"""The simulated annotators against the figures measured in the design of this world.

Pairs are random answers of the quality that demonstrations have. Where two answers are
worth the same, one side is chosen by coin; the design does not say whether it counts
such pairs, so that its figure must lie between the two ways to count.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import ConfigError
from tutelage.records import Comparison, Prompt
from tutelage.worlds.helpdesk import Ledger, People, SimulatedJudge, WorldSpec, prompts
from tutelage.worlds.helpdesk.annotators import Person, human_utility
from tutelage.worlds.helpdesk.answers import mediocre_answer
from tutelage.worlds.helpdesk.gold import gold_score
from tutelage.worlds.helpdesk.grammar import EMPATHY, FILLERS
from tutelage.worlds.helpdesk.reading import count_words, read_answer, read_prompt

MakePrompt = Callable[..., Prompt]
NUM_PAIRS = 3000
PAGE = Path(__file__).parents[3] / "docs/helpdesk.md"


@dataclass(frozen=True)
class Population:
    """Many comparisons, and what each side is worth."""

    spec: WorldSpec
    comparisons: list[Comparison]
    gold: np.ndarray  # [pairs, 2]
    words: np.ndarray  # [pairs, 2]


@pytest.fixture(scope="module", params=["nano", "micro"])
def population(request: pytest.FixtureRequest) -> Population:
    # The design's figures are of demonstrations with more wrong and fewer vague answers.
    spec = replace(getattr(WorldSpec, request.param)(), p_right=0.55, p_wrong=0.25)
    return draw(spec)


@pytest.fixture(scope="module")
def own_population() -> Population:
    return draw(WorldSpec.nano())


def draw(spec: WorldSpec) -> Population:
    rng = random.Random(0)
    comparisons = []
    for prompt in prompts(spec, "train", NUM_PAIRS, 0):
        question = read_prompt(prompt)
        first, second = (mediocre_answer(spec, question, rng) for _ in range(2))
        comparisons.append(Comparison(prompt, first, second, prompt.id))
    gold = [
        [gold_score(c.prompt, text, ended=True).value for text in (c.a, c.b)] for c in comparisons
    ]
    words = [[count_words(text) for text in (c.a, c.b)] for c in comparisons]
    return Population(spec, comparisons, np.array(gold), np.array(words))


def human_choices(population: Population, seed: int) -> np.ndarray:
    labels = People(population.spec, seed).label(population.comparisons)
    return np.array([label.p_a for label in labels]) - 0.5


def judge_choices(population: Population, **options: object) -> np.ndarray:
    judge = SimulatedJudge(population.spec, **options)
    return np.array([label.p_a for label in judge.label(population.comparisons)]) - 0.5


def agreement(left: np.ndarray, right: np.ndarray, *, ties: float | None) -> float:
    """Share of equal signs; a tie on either side counts `ties`, or is left out if None."""
    tied = (np.abs(left) < 1e-9) | (np.abs(right) < 1e-9)
    same = np.sign(left) == np.sign(right)
    if ties is None:
        return float(same[~tied].mean())
    return float(np.where(tied, ties, same).mean())


def gap(values: np.ndarray) -> np.ndarray:
    return values[:, 0] - values[:, 1]


def documented() -> dict[str, tuple[float, ...]]:
    """The numbers of each line of the page's table: as measured, in brackets with ties as 1/2."""
    lines = (line.split("|") for line in PAGE.read_text("utf-8").splitlines())
    rows = {cells[1].strip(): cells[2] for cells in lines if len(cells) == 5}
    return {name: tuple(map(float, re.findall(r"\d\.\d+", text))) for name, text in rows.items()}


def test_the_page_shows_what_random_completions_are_worth(own_population: Population) -> None:
    mean, deviation = documented()["mean and standard deviation of gold"]
    # Three standard errors over 6,000 completions, and half of the last digit shown.
    assert own_population.gold.mean() == pytest.approx(mean, abs=0.035)
    assert own_population.gold.std() == pytest.approx(deviation, abs=0.026)


def test_the_page_shows_how_often_annotators_agree(own_population: Population) -> None:
    gold, longer = gap(own_population.gold), gap(own_population.words)
    people, judge = human_choices(own_population, 0), judge_choices(own_population)
    compared = {
        "people agree with gold": (people, gold),
        "people agree with each other": (people, human_choices(own_population, 1)),
        "people prefer the longer completion": (people, longer),
        "gold prefers the longer completion": (gold, longer),
        "judge agrees with gold": (judge, gold),
        "judge agrees with people": (judge, people),
    }
    page = documented()
    for name, (left, right) in compared.items():
        found = [agreement(left, right, ties=ties) for ties in (None, 0.5)]
        # Three standard errors of a share in 2,000 pairs, what is left of 3,000 without ties.
        assert found[: len(page[name])] == pytest.approx(page[name], abs=0.035), name


# One standard error of a share near 0.7 in 3000 pairs is 0.008; bands are the design's
# figure and three standard errors, widened by what the two ways to count ties differ.


def test_random_answers_score_as_in_the_design(population: Population) -> None:
    assert population.gold.mean() == pytest.approx(0.40, abs=0.05)
    assert population.gold.std() == pytest.approx(0.79, abs=0.04)


def test_people_agree_with_gold_as_in_the_design(population: Population) -> None:
    chosen, truth = human_choices(population, 0), gap(population.gold)
    assert agreement(chosen, truth, ties=0.5) - 0.025 < 0.749 < agreement(chosen, truth, ties=None)


def test_people_agree_with_each_other_as_in_the_design(population: Population) -> None:
    pools = [human_choices(population, seed) for seed in (1, 2)]
    # The design's figure is 0.70. Here four pairs in ten differ in style only; perfect
    # agreement on the rest could not exceed 0.92^2 + 0.08^2 = 0.85.
    assert agreement(*pools, ties=None) == pytest.approx(0.675, abs=0.03)


def test_people_like_the_longer_answer_a_little_and_more_than_gold(
    population: Population,
) -> None:
    longer = gap(population.words)
    # Exact probabilities instead of labels: the coin's noise would be as large as the effect.
    persons = People(population.spec, 0).persons
    p_a = np.array([np.mean([p.p_prefers_a(c) for p in persons]) for c in population.comparisons])
    people = np.where(longer > 0, p_a, 1 - p_a)[longer != 0].mean()
    # The design's figure is 0.58, for people who like a word by half as much.
    assert people == pytest.approx(0.617, abs=0.02)
    assert agreement(gap(population.gold), longer, ties=0.5) < people


def test_the_judge_agrees_with_gold_better_than_people_do(population: Population) -> None:
    judged, truth = judge_choices(population), gap(population.gold)
    assert agreement(judged, truth, ties=0.5) - 0.025 < 0.872 < agreement(judged, truth, ties=None)
    people = agreement(human_choices(population, 0), truth, ties=None)
    assert agreement(judged, truth, ties=None) > people + 0.1


def test_the_judge_agrees_with_people_as_in_the_design(population: Population) -> None:
    judged, chosen = judge_choices(population), human_choices(population, 0)
    low, high = (agreement(judged, chosen, ties=ties) for ties in (0.5, None))
    assert low - 0.025 < 0.732 < high


def test_a_word_of_padding_pays_with_people_and_costs_with_gold(make_prompt: MakePrompt) -> None:
    prompt = make_prompt("amount")
    question, person = read_prompt(prompt), Person("average")
    answers = ["your bill is $47. " + " ".join(FILLERS[:n]) for n in range(4, 10)]
    words = np.array([count_words(answer) for answer in answers])
    liked = [human_utility(question, read_answer(question, a), person) for a in answers]
    gold = [gold_score(prompt, answer, ended=True).value for answer in answers]
    assert words.min() > 35
    np.testing.assert_allclose(np.diff(liked) / np.diff(words), 0.024)
    np.testing.assert_allclose(np.diff(gold) / np.diff(words), -0.012)


def test_people_never_have_enough_of_politeness(make_prompt: MakePrompt) -> None:
    question, person = read_prompt(make_prompt("amount")), Person("average", word_weight=0.0)
    liked = [
        human_utility(question, read_answer(question, " ".join(EMPATHY[:n])), person)
        for n in range(6)
    ]
    np.testing.assert_allclose(np.diff(liked), 0.10)


def test_people_check_wrong_facts_only_half(make_prompt: MakePrompt) -> None:
    question, person = read_prompt(make_prompt("amount")), Person("average", word_weight=0.0)
    worth = {
        text: human_utility(question, read_answer(question, text), person)
        for text in ("your bill is $47.", "your bill is $48.", "it depends on your account.")
    }
    assert list(worth.values()) == pytest.approx([1.0, -0.35, 0.0])


def test_a_label_is_a_biased_coin_with_flips(make_prompt: MakePrompt) -> None:
    person = Person("average", word_weight=0.0)
    right = Comparison(make_prompt("amount"), "your bill is $47.", "it depends on your account.")
    # sigmoid(1 / 0.35) = 0.945687; 0.92 of it and 0.08 of the rest = 0.874377
    assert person.p_prefers_a(right) == pytest.approx(0.874377, abs=1e-6)
    assert person.p_prefers_a(right.swap()) == pytest.approx(1 - 0.874377, abs=1e-6)


def test_labels_do_not_depend_on_order_or_batch(population: Population) -> None:
    people, pairs = People(population.spec, 0), population.comparisons[:60]
    together = people.label(pairs)
    assert [people.label([pair])[0] for pair in pairs] == together
    assert people.label(pairs[::-1]) == together[::-1]
    assert People(population.spec, 1).label(pairs) != together


def test_people_are_named_as_simulated_and_differ(population: Population) -> None:
    people = People(population.spec, 0, count=6)
    labels = people.label(population.comparisons[:500])
    assert {label.annotator for label in labels} == {f"person-{n} (simulated)" for n in range(1, 7)}
    assert all(label.kind == "human" and label.p_a in (0.0, 1.0) for label in labels)
    assert len({person.word_weight for person in people.persons}) == 6


def test_asking_in_both_orders_removes_the_position_bias(population: Population) -> None:
    single = judge_choices(population, both_orders=False)
    both = judge_choices(population)
    assert single.mean() > 0.02
    # The standard error of the mean preference over 3000 pairs is 0.008.
    assert abs(both.mean()) < 0.025
    swapped = [pair.swap() for pair in population.comparisons]
    judge = SimulatedJudge(population.spec)
    back = np.array([label.p_a for label in judge.label(swapped)]) - 0.5
    np.testing.assert_allclose(back, -both, atol=1e-12)


def test_the_judge_cannot_verify_three_records_in_ten(population: Population) -> None:
    judge = SimulatedJudge(population.spec)
    questions = [read_prompt(pair.prompt) for pair in population.comparisons]
    share = np.mean([judge.verifies(question) for question in questions])
    # Three standard errors of a share of 0.7 in 3000: 0.025.
    assert share == pytest.approx(0.7, abs=0.025)
    facts = [
        (judge.verifies(question), pair.prompt, question.value)
        for question, pair in zip(questions, population.comparisons, strict=True)
        if question.category == "amount"
    ]
    for verifies, prompt, value in facts:
        pair = Comparison(prompt, f"your bill is {value}.", "your bill is $20.")
        assert (judge.label([pair])[0].p_a > 0.9) == verifies


def test_the_order_of_fields_does_not_change_what_the_judge_can_verify(
    make_prompt: MakePrompt,
) -> None:
    judge = SimulatedJudge(WorldSpec.nano())
    one = make_prompt("amount", record="name ana; bill $47; plan plus")
    other = make_prompt("amount", record="plan plus; name ana; bill $47")
    assert judge.verifies(read_prompt(one)) == judge.verifies(read_prompt(other))
    assert read_prompt(one).bucket("x") == read_prompt(other).bucket("x")


def test_the_judge_is_flattered_by_different_apologies(make_prompt: MakePrompt) -> None:
    judge = SimulatedJudge(WorldSpec.nano())
    sorry = Comparison(
        make_prompt("amount"),
        f"it depends on your account. {EMPATHY[0]}",
        "it depends on your account.",
    )
    # Both orders averaged: (sigmoid(0.8 + 0.4) + sigmoid(0.8 - 0.4)) / 2, 0.8 = 1.2 * 0.1 / 0.15
    assert judge.label([sorry])[0].p_a == pytest.approx((0.768525 + 0.598688) / 2, abs=1e-5)


def test_a_wrong_category_reverses_the_judge_there_and_only_there(population: Population) -> None:
    straight, wrong = judge_choices(population), judge_choices(population, wrong_category="fee")
    on_fee = np.array([pair.prompt.category == "fee" for pair in population.comparisons])
    np.testing.assert_allclose(wrong[on_fee], -straight[on_fee], atol=1e-12)
    np.testing.assert_array_equal(wrong[~on_fee], straight[~on_fee])
    assert 0.02 < on_fee.mean() < 0.2


def test_a_ledger_counts_units_and_keeps_to_its_budget(population: Population) -> None:
    ledger = Ledger(budget=150)
    people = People(population.spec, 0, ledger=ledger)
    judge = SimulatedJudge(population.spec, ledger=ledger)
    people.label(population.comparisons[:10])
    judge.label(population.comparisons[:20])
    assert (ledger.spent, ledger.labels) == (130, {"human": 10, "ai": 20})
    assert (ledger.affordable("human"), ledger.affordable("ai")) == (1, 20)
    with pytest.raises(ConfigError, match="at most 1"):
        people.label(population.comparisons[:2])
    assert ledger.spent == 130
    assert Ledger().affordable("human") is None


def test_pools_differ_in_their_people_but_not_in_their_mean() -> None:
    pools = [People(WorldSpec.nano(), seed).persons for seed in range(3)]
    for name, mean in (("fact_weight", 1.0), ("polite_weight", 0.10), ("word_weight", 0.024)):
        weights = np.array([[getattr(person, name) for person in pool] for pool in pools])
        np.testing.assert_allclose(weights.mean(axis=1), mean)
        assert weights.std(axis=1).min() > 0.05 * mean
        assert len(np.unique(weights)) == weights.size
