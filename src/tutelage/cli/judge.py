"""`tutelage judge`: a judge model's labels, and whether they can be trusted."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tutelage.cli.stages import section_options, with_options
from tutelage.config import JudgeConfig, load_section
from tutelage.errors import ConfigError, JudgeError
from tutelage.pipeline.finish import open_console
from tutelage.tracking.atomic import write_json_atomically

__all__ = ["judge_command", "judge_tables"]

_DOC = """Asks a judge model which of two answers is better, and reports how far to trust it.

Every pair is asked about in both orders. Replies are kept in the cache from the moment they come:
the same command goes on where it was interrupted, or where its budget ended. The report has the
parse rate, position bias, length bias, self-preference, a probe for sycophancy, and agreement with
the people whose labels the pairs have.

Example: tutelage judge pairs.jsonl --model NAME --url http://127.0.0.1:8000/v1 --output ai.jsonl

Parameters
----------
pairs
    Files of preferences, of RewardBench's form or of pairs nobody has judged, and preference
    stores. With `--mode pointwise`, one file of prompts with completions, or of pairs.
output
    The preferences to write: a file, or a store (.db, .sqlite, or a database's URL) to add to. With
    `--mode pointwise`, the same rows with `ratings`, from 1 to 10.
config
    YAML file with the options of the judge; options given here win.
function
    A Python function FILE.py:NAME of comparisons to report on, in the place of a model.
mode
    pairwise: which of two answers is better. pointwise: how good each answer is.
report
    File to write the report into, as JSON.
as_json
    Print the report as JSON instead of tables.
limit
    Use only the first pairs of each file or store.
own
    The source that is the judge itself, or of its family, for self-preference: rows name who wrote
    their answers in `source_a` and `source_b`.
probes
    Pairs asked again with a person's opinion, for sycophancy; four questions each.
seed
    Of the bootstrap, and of which pairs are probed.
"""


def judge_command() -> Callable[..., int]:
    """The command; its options are its own and those of `JudgeConfig`."""
    options, given = section_options(JudgeConfig)

    def judge(
        *pairs: str,
        output: str,
        config: Path | None = None,
        function: str | None = None,
        mode: Literal["pairwise", "pointwise"] = "pairwise",
        report: Path | None = None,
        as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
        limit: int | None = None,
        own: str = "",
        probes: int = 20,
        seed: int = 0,
        **values: Any,
    ) -> int:
        if not pairs:
            raise ConfigError("no pairs: tutelage judge FILE... --model MODEL --output FILE")
        chosen = given(values)
        if function is not None and (config is not None or chosen):
            raise ConfigError("--function is a judge of its own: leave the model's options out")
        asked = {"limit": limit, "own": own, "probes": probes, "seed": seed}
        if function is not None:
            record = _of_function(function, pairs, output, asked)
        else:
            record = _of_model(_settings(config, chosen, output), mode, pairs, output, asked)
        if report is not None:
            write_json_atomically(report, record)
        if as_json:
            print(json.dumps(record, indent=2))
        else:
            console = open_console()
            for table in judge_tables(record):
                console.print(table)
            for warning in record.get("warnings", ()):
                console.print(f"warning: {warning}", markup=False, soft_wrap=True)
        return _end(record)

    return with_options(judge, options, _DOC)


def _settings(config: Path | None, values: Mapping[Any, Any], output: str) -> JudgeConfig:
    """The judge's configuration; replies are kept beside the output where no cache is named."""
    settings = load_section(JudgeConfig, config, values)
    if settings.cache is None and "://" not in output:
        settings = settings.model_copy(update={"cache": f"{output}.cache"})
    return settings


def _of_model(
    settings: JudgeConfig,
    mode: Literal["pairwise", "pointwise"],
    places: tuple[str, ...],
    output: str,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    from tutelage.pipeline.judge_tools import label_pairs, load_pairs, rate_samples, report_on
    from tutelage.pipeline.judges import open_judge

    if mode == "pointwise" and len(places) > 1:
        raise ConfigError(f"--mode pointwise takes one file, found {len(places)}")
    pairs = load_pairs(places, asked["limit"]) if mode == "pairwise" else None
    console = Console(stderr=True)
    notify: Callable[[str], None] = lambda message: console.print(message, markup=False)  # noqa: E731
    with open_judge(settings, notify) as judge:

        def cost() -> str:
            spent = judge.asker.spent
            money = f", {spent.cost:.4f} spent" if settings.price_in + settings.price_out else ""
            return f"{spent.tokens} tokens{money}"

        if pairs is None:
            with _progress(console, "rating", cost) as progress:
                return rate_samples(judge, Path(places[0]), Path(output), progress)
        with _progress(console, "judging", cost) as progress:
            verdicts = judge.judge(pairs.comparisons, progress)
        # Before the probes: whatever becomes of them, the labels are there.
        label_pairs(judge.preferences(verdicts), output)
        with _progress(console, "probing", cost) as progress:
            options = {key: asked[key] for key in ("probes", "own", "seed")}
            return report_on(judge, pairs, verdicts, progress=progress, **options)


def _of_function(
    name: str, places: tuple[str, ...], output: str, asked: Mapping[str, Any]
) -> dict[str, Any]:
    from tutelage.data.python_file import load_callable
    from tutelage.pipeline.judge_tools import label_pairs, load_pairs, report_on
    from tutelage.pipeline.judges import FunctionJudge

    judge = FunctionJudge(load_callable(name, "--function"), name.rpartition(":")[2])
    pairs = load_pairs(places, asked["limit"])
    verdicts = judge.judge(pairs.comparisons)
    label_pairs(judge.preferences(verdicts), output)
    options = {key: asked[key] for key in ("probes", "own", "seed")}
    return report_on(judge, pairs, verdicts, **options)


@contextmanager
def _progress(
    console: Console, what: str, cost: Callable[[], str]
) -> Iterator[Callable[[int, int], None]]:
    """A bar with the cost so far, on standard error; nothing where that is no terminal."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[cost]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, cost="")
        yield lambda done, total: bar.update(task, completed=done, total=total, cost=cost())


def _end(record: Mapping[str, Any]) -> int:
    """Raises where the budget ended it, after everything has been written."""
    if not record.get("left"):
        return 0
    cost = record["cost"]
    raise JudgeError(
        f"the budget ended it: {record['left']} left, {cost['tokens_ever']} tokens "
        f"({cost['cost_ever']:.4f}) spent with those under way at most. What was judged is "
        "written; the same command with a larger --max-tokens or --max-cost goes on from there"
    )


def judge_tables(record: Mapping[str, Any]) -> list[Table]:
    """The report for reading."""
    table = Table(title=f"Judge {record['judge']}")
    for head in ("", "value", "95 % interval", "pairs"):
        table.add_column(head)
    if "comparisons" not in record:
        mean = record["mean"]
        table.add_row("answers rated", f"{record['rated']} of {record['answers']}", "", "")
        table.add_row("mean rating", "none" if mean is None else f"{mean:.2f}", "", "")
        table.add_row("verdicts that could be read", f"{record['parse_rate']:.1%}", "", "")
        return [table, _cost(record)]
    for name, row in _lines(record):
        if row is None:
            table.add_row(name, "unknown", "", "")
        else:
            interval = f"{row['low']:.3f} to {row['high']:.3f}"
            table.add_row(name, f"{row['mean']:.3f}", interval, str(int(row["n"])))
    if record["people"] is not None:
        table.add_row(*_trust(record["people"]["trust"]))
    tables = [table, *_groups(record)]
    return [*tables, _cost(record)] if "cost" in record else tables


def _lines(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float] | None]]:
    def part(section: str, key: str) -> Mapping[str, float] | None:
        found: Mapping[str, Any] | None = record[section]
        return None if found is None else found[key]

    lines = [
        ("verdicts that could be read (both orders)", record["parse_rate"]),
        ("P(first) [0.5: no position bias]", part("position", "p_first")),
        ("position decides: contradictions", part("position", "contradictions")),
        ("  the first wins twice", part("position", "first_wins_twice")),
        ("  the second wins twice", part("position", "second_wins_twice")),
        ("P(longer answer)", part("length", "p_longer")),
        ("  more than people give it", part("length", "excess")),
        ("P(own answer)", part("self_preference", "p_own")),
        ("  more than people give it", part("self_preference", "excess")),
        ("sycophancy: shift towards the opinion", part("sycophancy", "shift")),
        ("  verdicts turned round", part("sycophancy", "turned")),
        ("agreement with people: accuracy", part("people", "accuracy")),
        ("agreement with people: kappa", part("people", "kappa")),
    ]
    # Whose answers they are is seldom known; nobody misses what was not asked for.
    return lines if record["self_preference"] is not None else lines[:7] + lines[9:]


def _trust(trust: Mapping[str, float] | None) -> tuple[str, str, str, str]:
    """How sure the judge must be for at most a fifth of its verdicts to differ from people's."""
    name = "labels that need no people (4 of 5 agree, 90 % sure)"
    if trust is None:
        return name, "none", "", ""
    sure = f"confidence {trust['confidence']:.2f} and more"
    return name, f"{trust['coverage']:.3f}", sure, str(int(trust["labels"]))


def _groups(record: Mapping[str, Any]) -> list[Table]:
    tables = []
    for grouping, rows in ((record["people"] or {}).get("groups") or {}).items():
        table = Table(title=f"Agreement with people by {grouping}, the worst first")
        for head in (grouping, "accuracy", "95 % interval", "kappa", "pairs"):
            table.add_column(head)
        for row in rows:
            interval = f"{row['low']:.3f} to {row['high']:.3f}"
            of_chance = f"{row['kappa']['mean']:.3f}"
            table.add_row(
                row["name"], f"{row['mean']:.3f}", interval, of_chance, str(int(row["n"]))
            )
        tables.append(table)
    return tables


def _cost(record: Mapping[str, Any]) -> Table:
    table = Table(title="Requests and cost")
    cost = record["cost"]
    for name in cost:
        table.add_column(name.replace("_", " "))
    table.add_row(
        *[f"{value:.4f}" if "cost" in name else str(value) for name, value in cost.items()]
    )
    return table
