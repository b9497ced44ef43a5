"""Shows that every verifier accepts what is right and rejects what is planted, on files of rows.

    python scripts/check_verifiers.py FOLDER          # files *.jsonl.gz of the `verifiable` schema
    python scripts/check_verifiers.py FOLDER --code   # runs programs as well, in the sandbox

Accepted are the reference, forms of it that must not matter, and the worked solution where a row
has one. Planted are other numbers, other letters, other texts, hedges that name several, broken
constraints. IFEval has no answers: for each of its constraints one that holds it is written here,
and one that breaks it.
"""

import argparse
import gzip
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from constraint_answers import breaking_answer, holding_answer

from tutelage.records import Prompt
from tutelage.rewards.verifiers.choice import Choice
from tutelage.rewards.verifiers.constraints import Constraints
from tutelage.rewards.verifiers.exact import Exact
from tutelage.rewards.verifiers.maths import Maths
from tutelage.rewards.verifiers.number import FinalNumber
from tutelage.rewards.verifiers.registry import load_verifier
from tutelage.rewards.verifiers.verifier import Verifier

Case = tuple[str, Prompt, str, bool]
"""Verifier's name, prompt, answer, and whether it must be accepted."""


def prompt_of(row: dict[str, Any]) -> Prompt:
    """As `load_prompts` reads it."""
    return Prompt.from_json({**row, "reference": row.get("answer")})


def number_cases(row: dict[str, Any], rng: random.Random) -> Iterator[Case]:
    """The number in several forms, the worked solution, and five kinds of wrong."""
    prompt, right = prompt_of(row), int(row["answer"])
    wrong = right + rng.choice([-100, -10, -2, -1, 1, 2, 10, 100])
    for text in (str(right), f"The answer is {right:,}.", f"... so \\boxed{{{right}}}", "SOLUTION"):
        text = row.get("solution", f"#### {right}") if text == "SOLUTION" else text
        yield "final_number", prompt, text, True
    hedge = ", ".join(str(right + i) for i in range(-3, 4))
    planted = [str(wrong), f"#### {wrong}", f"#### {hedge}", f"{right} or rather {wrong}", "?"]
    planted += [f"The answer is {right}.5", f"#### {-right}" if right else "#### 1"]
    for text in planted:
        yield "final_number", prompt, text, False
    yield "maths", prompt, f"$\\boxed{{{right}}}$", True
    yield "maths", prompt, f"$\\boxed{{{wrong}}}$", False


def choice_cases(row: dict[str, Any], rng: random.Random) -> Iterator[Case]:
    """The letter in several forms, the choice's text; other letters, and all at once."""
    prompt, right = prompt_of(row), row["answer"]
    choices = row["choices"]
    wrong = rng.choice([each for each in choices if each != right])
    for text in (right, f"({right})", f"The answer is ({right}).", f"{right}. {choices[right]}"):
        yield "choice", prompt, text, True
    everything = " ".join(f"({letter})" for letter in choices)
    planted = (wrong, f"The answer is ({wrong}).", choices[wrong], everything, " ".join(choices))
    for text in (*planted, f"The answer is {right} or {wrong}."):
        yield "choice", prompt, text, False


def text_cases(
    row: dict[str, Any], rng: random.Random, others: dict[str, list[str]]
) -> Iterator[Case]:
    """The reference, and that of another row of the task."""
    prompt, right = prompt_of(row), row["answer"]
    wrong = rng.choice([each for each in others[row["category"]] if each != right])
    for text in (right, f"{right}.", f"So the answer is {right}.", f"**{right}**"):
        yield "exact", prompt, text, True
    for text in (wrong, f"the answer is {wrong}", f"{right} {wrong}", f"not {right}", ""):
        yield "exact", prompt, text, False
    if len(right) == 3 and right[0] == "(" and right[2] == ")" and len(wrong) == 3:
        yield "choice", prompt, f"the answer is {right}", True
        yield "choice", prompt, f"the answer is {wrong}", False


def constraint_cases(row: dict[str, Any], rng: random.Random) -> Iterator[Case]:
    """Each constraint on its own: an answer that holds it and one that breaks it."""
    for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        alone = {**row, "instruction_id_list": [name], "kwargs": [arguments]}
        prompt = Prompt.from_json(alone)
        yield f"constraints {name}", prompt, holding_answer(name, arguments), True
        yield f"constraints {name}", prompt, breaking_answer(name, arguments), False


def code_cases(row: dict[str, Any], rng: random.Random) -> Iterator[Case]:
    """The reference solution bare and fenced; one that returns nothing, one that stops, none."""
    prompt = prompt_of(row)
    solution = row["solution"]
    yield "python_tests", prompt, f"```python\n{row.get('prefix', '')}{solution}\n```", True
    body = solution.replace("return ", "return [0.1] if True else ")
    if body != solution:
        yield "python_tests", prompt, body, False
    yield "python_tests", prompt, "I do not know.", False


def cases_of(rows: Sequence[dict[str, Any]], code: bool) -> Iterator[Case]:
    """All cases of a file, drawn from one seed."""
    rng = random.Random(0)
    others: dict[str, list[str]] = {}
    for row in rows:
        if row["answer_type"] == "text":
            found = others.setdefault(row["category"], [])
            if row["answer"] not in found:
                found.append(row["answer"])
    for row in rows:
        match row["answer_type"]:
            case "number":
                yield from number_cases(row, rng)
            case "choice":
                yield from choice_cases(row, rng)
            case "text":
                yield from text_cases(row, rng, others)
            case "constraints":
                yield from constraint_cases(row, rng)
            case "python_tests" if code:
                yield from code_cases(row, rng)


def check(path: Path, verifiers: dict[str, Verifier], code: bool) -> tuple[Counter, list[str]]:
    """Counts of (verifier, must be accepted, was), and the answers that went wrong."""
    counts: Counter = Counter()
    faults = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for name, prompt, text, right in cases_of(rows, code):
        verifier = verifiers.get(name.partition(" ")[0])
        if verifier is None:
            continue
        score = verifier.verify(prompt, text)
        told = (score.value == 1.0) is right
        counts[name, right, told] += 1
        if not told:
            faults.append(f"{prompt.id} {name} {text[:100]!r}: {score.value} {score.notes[:60]}")
    return counts, faults


def main() -> int:
    """Prints a table; fails where one verdict is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--code", action="store_true", help="run programs, in the sandbox")
    arguments.add_argument("--maths", action="store_true", help="numbers by math-verify as well")
    arguments.add_argument("--only", default="", help="files whose name contains this")
    given = arguments.parse_args()
    verifiers: dict[str, Verifier] = {
        "final_number": FinalNumber(),
        "choice": Choice(),
        "exact": Exact(),
        "constraints": Constraints(),
    }
    if given.code:
        verifiers["python_tests"] = load_verifier("python_tests")
    if given.maths:
        verifiers["maths"] = Maths(seconds=20.0)
    failed = 0
    print(
        "| File | Verifier | Right answers accepted | Planted wrong rejected |\n|---|---|---|---|"
    )
    for path in sorted(given.folder.glob("*.jsonl.gz")):
        if given.only not in path.name:
            continue
        counts, faults = check(path, verifiers, given.code)
        for name in dict.fromkeys(name for name, _, _ in counts):
            cells = []
            for right in (True, False):
                good, bad = counts[name, right, True], counts[name, right, False]
                cells.append(f"{good:,} of {good + bad:,}")
            print(f"| {path.name} | `{name}` | {cells[0]} | {cells[1]} |", flush=True)
        for fault in faults[:10]:
            print(f"  {fault}", file=sys.stderr)
        failed += len(faults)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
