"""Comparisons as a stage: what is built, who is asked, and what is written for whom."""

import json
import shutil
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tutelage.config import ChooseStage
from tutelage.data.loaders import load_comparisons, load_preferences
from tutelage.errors import DataError
from tutelage.models import RewardModel
from tutelage.pipeline.stages import choose
from tutelage.records import Comparison, Message, Preference, Prompt


def rows_of(letters: str, prompts: int = 4) -> list[dict]:
    """Samples: of each prompt one answer per letter, every second prompt about safety."""
    return [
        {
            "id": f"p{i}",
            "prompt": [{"role": "user", "content": f"say {i}"}],
            "category": "safety" if i % 2 else "billing",
            "completions": [f"{i} {letter * (i + 2)}" for letter in letters],
        }
        for i in range(prompts)
    ]


@pytest.fixture
def samples(write_rows):
    return lambda letters="abcd", name="samples.jsonl", prompts=4: write_rows(
        name, rows_of(letters, prompts)
    )


@pytest.fixture
def ensemble(tiny_recipe, tmp_path) -> str:
    """A stage's folder with two members that score differently."""
    source = Path(tiny_recipe.stages["train"].reward.model)
    for member in range(2):
        torch.manual_seed(member)
        model = RewardModel.load(source)
        torch.nn.init.normal_(model.model.score.weight)
        model.save(tmp_path / "rm" / "members" / str(member))
    shutil.copytree(source, tmp_path / "rm" / "model")
    return str(tmp_path / "rm" / "model")


def told(where, name: str) -> list[dict]:
    return [json.loads(line) for line in (where.folder / name).read_text().splitlines()]


def by_prompt(where, name: str) -> dict[str, set[frozenset[str]]]:
    found: dict[str, set[frozenset[str]]] = {}
    for row in told(where, name):
        found.setdefault(row["prompt_id"], set()).add(frozenset((row["a"], row["b"])))
    return found


def test_all_pairs_go_to_people_and_judge_within_the_budget(samples, context):
    where = context()
    numbers = choose.run(ChooseStage(samples=(samples(),), budget=44, people=0.5), where)
    # 4 prompts of 6 pairs; 2 of them for 22 units to people, 22 to the judge.
    assert numbers["candidates"] == 24
    assert (numbers["people"], numbers["judge"], numbers["units"]) == (2, 22, 44)
    assert len(load_comparisons(where.folder / "people.jsonl")) == 2
    assert len(load_comparisons(where.folder / "judge.jsonl")) == 22
    assert not {row["id"] for row in told(where, "people.jsonl")} & {
        row["id"] for row in told(where, "judge.jsonl")
    }
    assert {row["reason"] for row in told(where, "people.jsonl")} == {"random"}


def test_answers_of_two_models_are_compared_across(samples, context):
    where = context()
    both = (samples("ab", "one.jsonl"), samples("cd", "two.jsonl"))
    choose.run(ChooseStage(samples=both, pairs="across", budget=100, people=0.0), where)
    expected = {
        f"p{i}": {
            frozenset((f"{i} {a * (i + 2)}", f"{i} {b * (i + 2)}")) for a, b in product("ab", "cd")
        }
        for i in range(4)
    }
    assert by_prompt(where, "judge.jsonl") == expected


def test_answers_of_two_models_are_compared_all_with_all(samples, context):
    where = context()
    both = (samples("ab", "one.jsonl"), samples("bc", "two.jsonl"))
    numbers = choose.run(ChooseStage(samples=both, budget=100, people=0.0), where)
    # a b b c: six pairs, one of equal texts; two of those with a `b` are the same texts again.
    assert numbers["candidates"] == 4 * 5
    assert json.loads((where.folder / "choice.json").read_text())["left_out"]["identical"] == 4


def test_best_of_n_is_compared_with_the_worst(samples, context, ensemble):
    where = context()
    stage = ChooseStage(
        samples=(samples(),), pairs="extremes", reward=(ensemble,), budget=99, people=0.0
    )
    choose.run(stage, where)
    members = [
        RewardModel.load(Path(ensemble).parent / "members" / str(i)).eval() for i in range(2)
    ]
    for row in rows_of("abcd"):
        prompt = Prompt(row["id"], (Message("user", row["prompt"][0]["content"]),))
        scores = {
            text: sum(member.score([prompt], [text])[0] for member in members)
            for text in row["completions"]
        }
        ends = frozenset((max(scores, key=scores.get), min(scores, key=scores.get)))
        assert by_prompt(where, "judge.jsonl")[row["id"]] == {ends}


def test_people_are_asked_where_the_members_disagree_most(samples, context, ensemble):
    where = context()
    stage = ChooseStage(
        samples=(samples(),),
        reward=(ensemble,),
        budget=22,
        people=1.0,
        shares={"disagreement": 1.0},
    )
    choose.run(stage, where)
    members = [
        RewardModel.load(Path(ensemble).parent / "members" / str(i)).eval() for i in range(2)
    ]
    gaps = {}
    for row in rows_of("abcd"):
        prompt = Prompt(row["id"], (Message("user", row["prompt"][0]["content"]),))
        first, second = ([m.score([prompt], [t])[0] for t in row["completions"]] for m in members)
        for i, j in combinations(range(4), 2):
            # The variance of two numbers grows with their distance.
            gaps[f"{row['id']}/{i}-{j}"] = abs(first[i] - first[j] - second[i] + second[j])
    expected = sorted(gaps, key=gaps.get, reverse=True)[:2]
    assert [row["id"] for row in told(where, "people.jsonl")] == expected
    assert {row["reason"] for row in told(where, "people.jsonl")} == {"disagreement"}


def judgements(kind: str, ids: dict[str, float], **known) -> list[dict]:
    """Preferences about pairs of `rows_of("abcd")`, shown in the other order."""
    rows = []
    for name, p_a in ids.items():
        prompt, _, places = name.partition("/")
        i, j = map(int, places.split("-"))
        number = int(prompt[1:])
        texts = [f"{number} {letter * (number + 2)}" for letter in "abcd"]
        comparison = Comparison(
            Prompt(prompt, (Message("user", f"say {number}"),)), texts[j], texts[i], name
        )
        rows.append(Preference(comparison, p_a, "someone", kind, **known).to_json())  # type: ignore[arg-type]
    return rows


def test_people_are_asked_what_the_judge_is_unsure_about_and_it_keeps_the_rest(
    samples, context, write_rows
):
    said = {"p0/0-1": 0.02, "p1/0-2": 0.45, "p2/1-3": 0.99, "p3/2-3": 0.7}
    where = context()
    stage = ChooseStage(
        samples=(samples(),),
        judged=(write_rows("judged.jsonl", judgements("ai", said)),),
        budget=22,
        people=1.0,
        shares={"doubt": 1.0},
    )
    numbers = choose.run(stage, where)
    assert [row["id"] for row in told(where, "people.jsonl")] == ["p1/0-2", "p3/2-3"]
    kept = load_preferences(where.folder / "answered.jsonl")
    assert {row.comparison.id: row.p_a for row in kept} == {"p0/0-1": 0.02, "p2/1-3": 0.99}
    assert (numbers["judge"], numbers["answered"], numbers["units"]) == (0, 2, 22)


def test_what_people_have_judged_is_not_asked_again(samples, context, write_rows):
    done = {"p0/0-1": 1.0, "p0/0-2": 0.0}
    where = context()
    stage = ChooseStage(
        samples=(samples(),),
        judged=(write_rows("judged.jsonl", judgements("human", done)),),
        budget=1000,
        people=1.0,
    )
    assert choose.run(stage, where)["people"] == 22
    assert not done.keys() & {row["id"] for row in told(where, "people.jsonl")}


def exchanged(rows: list[dict]) -> list[dict]:
    """The same judgements of pairs that were shown the other way round."""
    return [row | {"a": row["b"], "b": row["a"], "p_a": 1.0 - row["p_a"]} for row in rows]


def trusting(samples, write_rows, wrong: int) -> ChooseStage:
    """People agree where the judge is sure, and not in `wrong` of ten pairs where it is less so.

    They saw 120 of 240 pairs, and the answers in the other order.
    """
    pairs = [f"p{n}/{i}-{j}" for n in range(40) for i, j in combinations(range(4), 2)]
    said = {name: 0.95 if k % 2 else 0.3 for k, name in enumerate(pairs)}
    agreed = {
        name: float(said[name] > 0.5) if k % 2 or (k // 2) % 10 >= wrong else 1.0
        for k, name in enumerate(pairs[:120])
    }
    return ChooseStage(
        samples=(samples(prompts=40),),
        judged=(
            write_rows("ai.jsonl", judgements("ai", said)),
            write_rows("people.jsonl", exchanged(judgements("human", agreed))),
        ),
        budget=1,
        people=0.0,
        trust={"disagreement": 0.2, "failure": 0.1},
    )


@pytest.mark.parametrize(("wrong", "confidence", "kept"), [(5, 0.9, 60), (0, 0.4, 120)])
def test_the_judge_is_believed_as_far_as_people_agree(
    samples, context, write_rows, wrong, confidence, kept
):
    where = context()
    numbers = choose.run(trusting(samples, write_rows, wrong), where)
    assert (numbers["answered"], numbers["distrusted"]) == (kept, 120 - kept)
    trust = json.loads((where.folder / "choice.json").read_text())["trust"]
    # All thresholds down to the least confidence that was believed say the same.
    assert confidence - 0.5 <= trust["confidence"] <= confidence
    rows = load_preferences(where.folder / "answered.jsonl")
    assert {row.p_a for row in rows} == ({0.95} if wrong else {0.95, 0.3})


def test_a_judge_that_people_do_not_agree_with_is_believed_nowhere(samples, context, write_rows):
    stage = trusting(samples, write_rows, 5)
    turned = judgements("human", {f"p{n}/0-1": 0.0 for n in range(40)})
    sure = judgements("ai", {f"p{n}/0-1": 0.9 for n in range(40)} | {"p0/0-2": 0.9})
    judged = (write_rows("a.jsonl", sure), write_rows("b.jsonl", turned))
    where = context()
    numbers = choose.run(stage.model_copy(update={"judged": judged}), where)
    assert (numbers["answered"], numbers["distrusted"]) == (0, 1)


def test_trust_without_people_is_an_error_that_says_how_many_are_needed(
    samples, context, write_rows
):
    judged = (write_rows("judged.jsonl", judgements("ai", {"p0/0-1": 0.9})),)
    stage = ChooseStage(samples=(samples(),), judged=judged, budget=10, trust={})
    with pytest.raises(
        DataError, match=r"0 comparisons have been judged .* at least 11 are needed"
    ):
        choose.run(stage, context())


def test_people_alone_decide_their_categories(samples, context):
    where = context()
    stage = ChooseStage(
        samples=(samples(),),
        budget=66,
        people=0.5,
        shares={"category": 1.0},
        categories=("safety",),
        per_prompt=1,
    )
    numbers = choose.run(stage, where)
    assert {row["category"] for row in told(where, "people.jsonl")} == {"safety"}
    # Two prompts about safety, one comparison of each; the judge has all twelve about billing.
    assert (numbers["people"], numbers["judge"], numbers["withheld"]) == (2, 12, 10)
    assert {row["category"] for row in told(where, "judge.jsonl")} == {"billing"}


def test_a_choice_depends_on_the_seed_alone(samples, context):
    stage = ChooseStage(samples=(samples(),), pairs_per_prompt=3, budget=30)
    first, same, other = context(1), context(1), context(2)
    for where in (first, same, other):
        choose.run(stage, where)
    assert told(first, "people.jsonl") == told(same, "people.jsonl")
    assert told(first, "judge.jsonl") == told(same, "judge.jsonl")
    assert told(first, "judge.jsonl") != told(other, "judge.jsonl")
    assert len(told(first, "people.jsonl") + told(first, "judge.jsonl")) == 12


def test_one_model_cannot_disagree(samples, context, tiny_recipe):
    stage = ChooseStage(
        samples=(samples(),),
        reward=(tiny_recipe.stages["train"].reward.model,),
        budget=30,
        shares={"disagreement": 1.0},
    )
    with pytest.raises(DataError, match="one model alone, which cannot disagree"):
        choose.run(stage, context())


def test_samples_that_leave_nothing_to_compare_are_an_error(samples, context):
    with pytest.raises(DataError, match=r"4 prompts leave nothing to compare \(4 identical\)"):
        choose.run(ChooseStage(samples=(samples("aa"),), budget=30), context())


def test_one_id_for_two_prompts_is_an_error(samples, context, write_rows):
    other = [{**rows_of("ab")[0], "prompt": [{"role": "user", "content": "another"}]}]
    both = (samples(), write_rows("other.jsonl", other))
    with pytest.raises(DataError, match="prompt 'p0' has other messages"):
        choose.run(ChooseStage(samples=both, budget=30), context())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": {"doubt": 1.0}}, "shares.doubt needs judged"),
        ({"trust": {}}, "trust needs judged"),
        ({"shares": {"conflict": 1.0}, "judged": ("j",)}, "shares.conflict needs reward"),
        ({"shares": {"disagreement": 0.5}}, "shares.disagreement needs reward"),
        ({"shares": {"category": 0.5}}, "shares.category needs categories"),
        ({"pairs": "extremes"}, "pairs: extremes needs reward"),
        ({"pairs": "across"}, "pairs is 'across' and samples has 1 entry"),
    ],
)
def test_strategies_need_what_they_choose_by(settings, message):
    with pytest.raises(ValidationError, match=message):
        ChooseStage(samples=("s",), budget=10, **settings)
