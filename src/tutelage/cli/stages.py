"""One command per stage; its options are the fields of the stage's configuration."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_origin

from cyclopts import Group, Parameter

from tutelage.config import (
    DPOStage,
    EvaluateStage,
    LabelStage,
    PretrainStage,
    SampleStage,
    Section,
    SelectStage,
    SFTStage,
    Stage,
    TrainStage,
    load_section,
)
from tutelage.config.document import KeyPath
from tutelage.config.schema import Leaf, Shape, item_shape, leaves
from tutelage.pipeline import run_stage

__all__ = ["STAGE_COMMANDS", "section_options", "stage_command", "with_options"]

STAGE_COMMANDS: dict[str, type[Stage]] = {
    "pretrain": PretrainStage,
    "sft": SFTStage,
    "sample": SampleStage,
    "label": LabelStage,
    "dpo": DPOStage,
    "select": SelectStage,
    "train": TrainStage,
    "evaluate": EvaluateStage,
}
"""The stages that have a command of their own; `reward train` is among those of `cli.reward`."""

_EXAMPLES = {
    "pretrain": "tutelage pretrain --data texts.jsonl.gz --output models/base",
    "sft": "tutelage sft --model models/base --data demonstrations.jsonl --output models/sft",
    "sample": "tutelage sample --model models/sft --prompts prompts.jsonl --output samples",
    "label": "tutelage label --samples samples --annotator people --output labels",
    "feedback pairs": "tutelage feedback pairs --samples samples --judged labels --budget 2000 "
    "--shares.random 0.2 --shares.doubt 0.8 --output asked",
    "constitution revise": "tutelage constitution revise --constitution customer-service --samples "
    "samples --writer helpdesk --output revised",
    "constitution prefer": "tutelage constitution prefer --constitution customer-service --samples "
    "samples --writer helpdesk --output labels",
    "reward train": "tutelage reward train --model models/sft --phases.0.preferences "
    "labels --output models/rm",
    "dpo": "tutelage dpo --model models/sft --preferences labels --output models/dpo",
    "select": "tutelage select --samples samples --reward models/rm --output winners",
    "train": "tutelage train --model models/sft --reward.model models/rm --prompts prompts.jsonl "
    "--output models/ppo",
    "evaluate": "tutelage evaluate --models.sft models/sft --models.ppo models/ppo --baseline sft "
    "--prompts test.jsonl --output evaluation",
}

_OUTPUT = "The folder to write; it must be empty or hold the same finished stage."
_CONFIG = "YAML file with values of these options; options given here win."

_LISTED = 2
"""Items of a list of sections that have options; more are set in a file."""


def stage_command(section: type[Stage], name: str = "") -> Callable[..., None]:
    """A function with one keyword argument per field, for the command line to call.

    Args:
        section: configuration of the stage.
        name: of the command; the kind of the stage by default.
    """
    kind = name or str(section.model_fields["kind"].default)
    options, given = section_options(section)

    def command(
        *,
        output: Annotated[Path, Parameter(help=_OUTPUT)],
        config: Annotated[Path | None, Parameter(help=_CONFIG)] = None,
        **values: Any,
    ) -> None:
        run_stage(load_section(section, config, given(values)), output)

    command.__name__ = kind.rpartition(" ")[2]
    return with_options(command, options, _docstring(kind, section))


def section_options(
    section: type[Section],
) -> tuple[list[inspect.Parameter], Callable[[Mapping[str, Any]], dict[KeyPath, Any]]]:
    """A keyword argument per field, and what turns their values into those of the section."""
    options = {"__".join(map(str, leaf.path)): leaf for leaf in _options(section)}

    def given(values: Mapping[str, Any]) -> dict[KeyPath, Any]:
        return {
            _positions(options[option].path): value
            for option, value in values.items()
            if option in options and value is not None
        }

    return [_parameter(key, leaf) for key, leaf in options.items()], given


def with_options(
    command: Callable[..., Any], options: Sequence[inspect.Parameter], doc: str
) -> Callable[..., Any]:
    """The same function, shown with these options in the place of its `**values`."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = [*own, *options]
    command.__doc__ = doc
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _docstring(kind: str, section: type[Stage]) -> str:
    summary = (section.__doc__ or "").strip().splitlines()[0]
    return (
        f"{summary}\n\nWrites a finished stage folder that other stages can read. Files, folders "
        f"of finished stages and names on a model hub are references.\n\nExample: {_EXAMPLES[kind]}"
    )


def _parameter(name: str, leaf: Leaf) -> inspect.Parameter:
    option = ".".join(leaf.path).replace("_", "-")
    help_text = f"{leaf.help} [required]" if leaf.required else leaf.help
    settings = Parameter(
        name=f"--{option}",
        help=help_text,
        negative=f"--{option.rpartition('.')[0]}.no-{option.rpartition('.')[2]}".replace(
            "--.", "--"
        )
        if leaf.shape.annotation is bool
        else (),
        show_default=False if leaf.required or leaf.default is None else lambda _: leaf.default,
        consume_multiple=leaf.shape.is_list,
        group=_group(leaf.path[:-1]),
    )
    annotation = Annotated[_type(leaf.shape), settings]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None
    )


def _group(path: tuple[str, ...]) -> Group:
    name = f"Options of {'.'.join(path)}" if path else "Options"
    # Sections after the stage's own options, inner ones behind the section they are in.
    return Group(name, sort_key=(bool(path), path))


def _options(section: type[Section]) -> list[Leaf]:
    """The leaves of a section; of a list of sections, those of its first items."""
    found = []
    for leaf in leaves(section):
        item = item_shape(leaf.shape)
        if item is None or item.section is None:
            found.append(leaf)
            continue
        for index in range(_LISTED):
            for inner in leaves(item.section, (*leaf.path, str(index))):
                required = inner.required and index == 0
                found.append(Leaf(inner.path, inner.shape, inner.help, required, inner.default))
    return found


def _positions(path: tuple[str, ...]) -> KeyPath:
    return tuple(int(key) if key.isdecimal() else key for key in path)


def _type(shape: Shape) -> Any:
    """The type as the command line reads it: bare, and allowed to be absent."""
    kinds = [_bare_type(member) for member in shape.members if member.annotation is not type(None)]
    return Union[(*kinds, None)]


def _bare_type(shape: Shape) -> Any:
    items = tuple(item.annotation for item in shape.items)
    kind = get_origin(shape.annotation)
    if kind is dict:
        return dict[str, items[0]]
    if kind is tuple:
        return list[items[0]] if len(items) == 1 else tuple[items]
    return shape.annotation
