"""Who is asked about which comparison: people a few that matter, a judge the bulk.

    candidates ──choose──> people        as many as their part of the budget pays for
        └── the rest ─┬─> withheld       of the categories that people alone decide
                      ├─> answered       the judge has said already: nothing to pay
                      ├─> distrusted     it has said, and is not sure enough to be believed
                      └─> judge          prompt by prompt, until the budget is spent

Routing between people and models beats either alone where their errors differ (Miranda et al.
2024, arXiv:2410.19133). Where the judge errs with confidence on a category that one can name,
naming it is the cheapest cure: the judge is then never asked about it.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tutelage.errors import DataError
from tutelage.feedback.choice import Candidate, Chosen, Strategy, choose

__all__ = ["Costs", "Routing", "route"]


@dataclass(frozen=True, slots=True)
class Costs:
    """Units per judged comparison: 11 to 1 as in Lee et al. 2023 (arXiv:2309.00267), appendix L."""

    people: int = 11
    judge: int = 1


@dataclass(frozen=True)
class Routing:
    """Every candidate once, by who is asked about it."""

    people: tuple[Chosen, ...]
    """With the reasons."""
    judge: tuple[Candidate, ...]
    """The judge is still to be asked."""
    answered: tuple[Candidate, ...]
    """The judge's answer is there and stands."""
    distrusted: tuple[Candidate, ...]
    """The judge's answer is there and is not believed."""
    withheld: tuple[Candidate, ...]
    """Of the categories that people alone decide, and not chosen for them."""
    unaffordable: tuple[Candidate, ...]
    """Nobody is asked: the budget is spent."""
    units: int
    """What people and the judge will cost."""


def route(
    candidates: Iterable[Candidate],
    *,
    budget: int,
    people: float,
    shares: Mapping[Strategy, float],
    categories: Collection[str] = (),
    per_prompt: int | None = None,
    trusted: float = 0.0,
    costs: Costs = Costs(),
    seed: int = 0,
) -> Routing:
    """Chooses what people are asked and leaves the rest to the judge, within a budget.

    The judge gets whole prompts in random order, all their comparisons together: a reward model
    reads each answer once, in however many comparisons it stands. What people leave of their part,
    for want of candidates, the judge may spend.

    Args:
        candidates: what may be asked about.
        budget: units to spend from now on; answers that the judge has given are paid for.
        people: share of the budget for people.
        shares, per_prompt: how people's comparisons are chosen; see `choose`.
        categories: those that people alone decide.
        trusted: confidence, 1 - `doubt`, from which on the judge's answers stand; see
            `tutelage.feedback.trust`.
        costs: units per comparison.
        seed: of all draws.

    Raises:
        DataError: `people` is no share, or shares are wrong; see `choose`.
    """
    if not 0.0 <= people <= 1.0:
        raise DataError(f"people's share of the budget is {people!r}, expected a number in [0, 1]")
    pool = list(candidates)
    # 0.3 of 110 is 33 labels of 1, whatever the last bit of the product says.
    places = math.floor(budget * people / costs.people + 1e-9)
    chosen = choose(pool, places, shares, categories=categories, per_prompt=per_prompt, seed=seed)
    theirs = {id(row.candidate) for row in chosen}
    rest = [candidate for candidate in pool if id(candidate) not in theirs]
    withheld = [candidate for candidate in rest if candidate.category in categories]
    open_to_judge = [candidate for candidate in rest if candidate.category not in categories]
    unasked = [candidate for candidate in open_to_judge if candidate.p_a is None]
    said = [candidate for candidate in open_to_judge if candidate.p_a is not None]
    spent = len(chosen) * costs.people
    asked = _whole_prompts(unasked, (budget - spent) // costs.judge, seed)
    paid = {id(candidate) for candidate in asked}
    return Routing(
        people=tuple(chosen),
        judge=tuple(asked),
        answered=tuple(candidate for candidate in said if candidate.confidence >= trusted),
        distrusted=tuple(candidate for candidate in said if candidate.confidence < trusted),
        withheld=tuple(withheld),
        unaffordable=tuple(candidate for candidate in unasked if id(candidate) not in paid),
        units=spent + len(asked) * costs.judge,
    )


def _whole_prompts(candidates: Sequence[Candidate], count: int, seed: int) -> list[Candidate]:
    """Up to `count` candidates, those of a prompt together; the last prompt may be cut."""
    by_prompt: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.comparison.id):
        by_prompt.setdefault(candidate.comparison.prompt.id, []).append(candidate)
    prompts = sorted(by_prompt)
    Random(f"routing {seed}").shuffle(prompts)
    return [candidate for prompt in prompts for candidate in by_prompt[prompt]][:count]
