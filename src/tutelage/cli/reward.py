"""`tutelage reward`: train, evaluate and score with reward models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from tutelage.cli.stages import stage_command
from tutelage.config import RewardStage
from tutelage.errors import ConfigError
from tutelage.pipeline.finish import open_console
from tutelage.tracking.atomic import write_json_atomically

__all__ = ["build_reward_app", "evaluate", "score"]

_HELP = """\
Trains reward models, measures them on judged pairs, and scores answers with them.

Example: tutelage reward evaluate models/rm --pairs test.jsonl --training train.jsonl
"""
_NAME = 32
"""Characters of a model's folder that a table has room for."""
_FILES = Parameter(negative=(), show_default=False, consume_multiple=True)


def build_reward_app(*, sort_key: int) -> App:
    """The command with one command per task; the key is its place among the other commands."""
    app = App(name="reward", help=_HELP, sort_key=sort_key)
    app.command(stage_command(RewardStage, "reward train"), name="train", sort_key=0)
    app.command(evaluate, sort_key=1)
    app.command(score, sort_key=2)
    return app


def evaluate(
    *models: str,
    pairs: Annotated[tuple[Path, ...], _FILES],
    training: Annotated[tuple[Path, ...], _FILES] = (),
    output: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    limit: int | None = None,
    max_length: int | None = None,
    worst: int = 3,
    seed: int = 0,
) -> None:
    """Measures reward models on judged pairs, beside length and a bag of words.

    Example: tutelage reward evaluate models/rm --pairs test.jsonl --training train.jsonl

    Parameters
    ----------
    models
        Folders of reward models or of the stages that trained them, or names on a model hub.
    pairs
        Files of preferences, or of RewardBench's form: prompt, chosen, rejected, subset. The models
        must not have been trained on them.
    training
        The models' training pairs, from which the baselines learn; without, the baselines are
        cross-validated on the pairs.
    output
        Folder to write `reward.json` into, for one model; `reward.gate` of a recipe reads it there.
    as_json
        Print the records as JSON instead of tables.
    limit
        Use only the first pairs of each file.
    max_length
        Tokens of prompt and answer [default: the model's own].
    worst
        Pairs shown that the model is most wrong about.
    seed
        Of the bootstrap.
    """
    from tutelage.pipeline.reward_tools import evaluate_reward, load_pairs, load_reward

    if not models:
        raise ConfigError("no model: tutelage reward evaluate MODEL... --pairs FILE...")
    if output is not None and len(models) > 1:
        raise ConfigError(f"--output takes the record of one model, found {len(models)} models")
    judged, learned = load_pairs(pairs, limit), load_pairs(training)
    records = {
        name: evaluate_reward(load_reward(name, max_length), judged, learned, seed=seed)
        for name in models
    }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_json_atomically(output / "reward.json", records[models[0]])
    if as_json:
        print(json.dumps(records, indent=2))
        return
    console = open_console()
    for table in _summary(records):
        console.print(table)
    for name, record in records.items():
        for table in _groups(name, record):
            console.print(table)
        for line in record["held_out"].get("verdict", ()):
            console.print(f"{name} {line}", markup=False, highlight=False, soft_wrap=True)
        for pair in record["held_out"]["worst"][:worst]:
            console.print(_pair(pair), markup=False, highlight=False, soft_wrap=True)


def score(model: str, *, samples: Path, output: Path, max_length: int | None = None) -> None:
    """Adds a reward model's scores to a file of prompts with answers.

    Example: tutelage reward score models/rm --samples samples.jsonl --output scored.jsonl

    Parameters
    ----------
    model
        Folder of a reward model or of the stage that trained it, or a name on a model hub.
    samples
        Rows of a prompt with completions, with a and b, or with chosen and rejected.
    output
        The file to write: the same rows with `scores`, in sigmas; null for what is too long.
    max_length
        Tokens of prompt and answer [default: the model's own].
    """
    from tutelage.pipeline.reward_tools import load_reward, score_samples

    count = score_samples(load_reward(model, max_length), samples, output)
    print(f"{output}: {count} texts scored")


def _summary(records: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Every model beside its baselines; then what else is known of the models."""
    accuracy = Table(title="Accuracy on the pairs, with 95 % intervals")
    for head in ("", "accuracy", "lead of the model"):
        accuracy.add_column(head)
    others = Table(title="Length and calibration")
    others.add_column("")
    columns = []
    for name, record in records.items():
        held, shown = record["held_out"], _shortened(name)
        accuracy.add_row(shown, _share(held["accuracy"]), "")
        for baseline, row in held["baselines"].items():
            better = "" if row["better"] else ", not better"
            lead = _share(row["lead"], signed=True) + better
            accuracy.add_row(f"  baseline: {baseline}", _share(row["accuracy"]), lead)
        for section, value in record.get("reward_bench", {}).items():
            accuracy.add_row(f"  {section}", f"{value:.1%}", "")
        others.add_column(shown)
        columns.append(_other_measures(held))
    for key in columns[0]:
        others.add_row(key, *[column[key] for column in columns])
    return [accuracy, others]


def _other_measures(held: Mapping[str, Any]) -> dict[str, str]:
    length, tempered = held["length"], held["temperature"]
    balanced = length["balanced"]
    return {
        "accuracy at similar length": _share(length["similar"]),
        "accuracy with length taken out": _share(length["adjusted"]),
        "accuracy, longer and shorter balanced": "none" if balanced is None else f"{balanced:.1%}",
        "log loss": f"{held['loss']:.3f}",
        "calibration error": f"{held['ece']:.3f}",
        "calibration error at the temperature": f"{tempered['ece']:.3f}",
        "temperature": f"{tempered['temperature']:.3g}",
    }


def _shortened(name: str) -> str:
    """The end of a folder's path, which tells models apart."""
    return name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"


def _share(row: Mapping[str, float] | None, *, signed: bool = False) -> str:
    if row is None:
        return "none"
    sign = "+" if signed else ""
    return f"{row['mean']:{sign}.1%} [{row['low']:{sign}.1%}, {row['high']:{sign}.1%}]"


def _groups(name: str, record: Mapping[str, Any]) -> list[Table]:
    tables = []
    for grouping, rows in record["held_out"]["groups"].items():
        table = Table(title=f"{name}: accuracy by {grouping}, the worst first")
        for head in (grouping, "accuracy", "pairs"):
            table.add_column(head)
        for row in rows:
            table.add_row(row["name"], _share(row), str(int(row["n"])))
        tables.append(table)
    return tables


def _pair(pair: Mapping[str, Any]) -> str:
    return (
        f"wrong by {-pair['margin']:.2f} on {pair['id']}\n  prompt: {_line(pair['prompt'])}\n"
        f"  better: {_line(pair['better'])}\n  scored higher: {_line(pair['worse'])}"
    )


def _line(text: str, most: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."
