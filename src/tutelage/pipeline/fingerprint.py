"""What makes a stage the same stage: its fingerprint and that of everything it reads.

    kind, configuration, seed, format ─┐
    manifest.json of each stage read ──┼─> SHA-256 ─> equal to the finished stage's: skip it
    bytes of each file read,           │
    preferences that stand in a store ─┘

A stage that ran again has a new manifest, so whatever reads it is run again too.

Configurations are compared with their defaults filled in, so that a changed default counts. A key
that an earlier version of Tutelage did not have is another matter: where it stands at its default,
that version did the same without it, or `STAGE_FORMAT` has been raised.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from tutelage.config import (
    GENERAL_RUBRIC,
    JudgeConfig,
    Section,
    Stage,
    is_judge_file,
    load_section,
)
from tutelage.errors import DataError
from tutelage.feedback.location import is_store
from tutelage.feedback.store import PreferenceStore
from tutelage.pipeline.references import References
from tutelage.tracking.fingerprint import file_fingerprint, fingerprint
from tutelage.tracking.manifest import MANIFEST, Manifest, verify
from tutelage.tracking.stage import StageInfo

__all__ = ["STAGE_FORMAT", "describe_stage", "difference", "stage_seed", "without_new_defaults"]

STAGE_FORMAT = 2
"""Raised when a stage of the same configuration writes other results than before; so also when a
new key's default does not do what was done without it."""


def stage_seed(stage: Stage, name: str, recipe_seed: int) -> int:
    """The stage's own seed, or one in [0, 2**31) drawn from the recipe's seed and its name."""
    if stage.seed is not None:
        return stage.seed
    digest = hashlib.sha256(f"{recipe_seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def describe_stage(stage: Stage, seed: int, references: References) -> StageInfo:
    """Kind, configuration, seed and fingerprints; the stages it reads must be finished.

    Raises:
        DataError: a file it reads does not exist.
        ConfigError: a file that is to describe a judge does not.
        CheckpointError: a finished stage it reads is damaged.
    """
    inputs = {name: _input(name, references) for name in dict.fromkeys(stage.references())}
    inputs |= _files(stage)
    return _identified(StageInfo(stage.kind, stage.to_json(), "", inputs, seed))


def _identified(info: StageInfo) -> StageInfo:
    identity = {
        "format": STAGE_FORMAT,
        "kind": info.kind,
        "config": _without_seed(info.config),
        "seed": info.seed,
        "inputs": info.inputs,
    }
    return replace(info, fingerprint=fingerprint(identity))


def without_new_defaults(info: StageInfo, stage: Stage, before: Manifest | StageInfo) -> StageInfo:
    """The stage as the version of Tutelage that made `before` would describe it.

    A key that the earlier configuration lacks is left out where it stands at its default. A key
    that it has and this version lacks, or one that is not at its default, makes a difference.
    """
    return _identified(replace(info, config=_known(stage, dict(info.config), before.config)))


def difference(before: Manifest | StageInfo, info: StageInfo) -> str:
    """Why an earlier stage, finished or saved, is not the one described; empty when it is."""
    if before.fingerprint == info.fingerprint:
        return ""
    keys = [key for key, value in info.config.items() if before.config.get(key) != value]
    read = [name for name, value in info.inputs.items() if before.inputs.get(name) != value]
    if keys:
        return f"{', '.join(keys)} changed in its configuration"
    if read:
        return f"{', '.join(read)} changed"
    if before.seed != info.seed:
        return f"its seed changed from {before.seed} to {info.seed}"
    return "another version of Tutelage made it"


def _known(
    section: Section, config: Mapping[str, Any], before: Mapping[str, Any], usual: Any = None
) -> dict[str, Any]:
    """A section's values without the keys that are not in `before` and at their defaults.

    `usual` is the section's own default, whose values are then the defaults of its keys.
    """
    kept = {}
    for key, value in config.items():
        default = _default(section, key, usual)
        if key in before:
            kept[key] = _known_value(getattr(section, key), value, before[key], default)
        elif value != to_jsonable_python(default):
            kept[key] = value
    return kept


def _known_value(value: Any, config: Any, before: Any, default: Any) -> Any:
    if isinstance(value, Section) and isinstance(before, Mapping):
        return _known(value, config, before, default if type(default) is type(value) else None)
    if isinstance(value, (list, tuple)) and isinstance(before, list):
        rows = zip(value, config, [*before, *[None] * len(config)], strict=False)
        return [_known_value(*row, None) for row in rows]
    return config


_REQUIRED = "(no default)"


def _default(section: Section, key: str, usual: Any) -> Any:
    if usual is not None:
        return getattr(usual, key)
    field = type(section).model_fields[key]
    return _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _without_seed(config: Mapping[str, object]) -> dict[str, object]:
    # The seed in force is fingerprinted: writing the derived one down changes nothing.
    return {key: value for key, value in config.items() if key != "seed"}


def _input(reference: str, references: References) -> str:
    folder = references.stage_folder(reference)
    if folder is not None:
        return file_fingerprint(folder / MANIFEST)
    hashes = [_path_fingerprint(path) for path in references.outside(reference)]
    return hashes[0] if len(hashes) == 1 else fingerprint(hashes)


def _path_fingerprint(path: Path) -> str:
    if is_store(path):
        # Its file also changes where nothing of what it holds does.
        with PreferenceStore(path, create=False) as store:
            return store.digest()
    if path.is_file():
        return file_fingerprint(path)
    if (path / MANIFEST).is_file():
        verify(path)
        return file_fingerprint(path / MANIFEST)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint(
            {file.relative_to(path).as_posix(): file_fingerprint(file) for file in files}
        )
    return f"hub:{path}"


def _files(stage: Stage) -> dict[str, str]:
    files: dict[str, str] = {}
    for key, file in stage.files():
        files[file] = _file(key, file)
        # A rubric may be YAML too, and describes no judge.
        if is_judge_file(file) and not key.endswith(".rubric"):
            rubric = load_section(JudgeConfig, Path(file), {}).rubric
            if rubric != GENERAL_RUBRIC:
                files[rubric] = _file(f"{file}: rubric", rubric)
    return files


def _file(key: str, file: str) -> str:
    if not Path(file).is_file():
        raise DataError(
            f"{key} names {file!r}, which is no file: write path/to/file.py:name, or "
            "the path of the file"
        )
    return file_fingerprint(Path(file))
