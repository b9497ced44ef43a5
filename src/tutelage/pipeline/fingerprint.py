"""What makes a stage the same stage: its fingerprint and that of everything it reads.

    kind, configuration, seed, format ─┐
    manifest.json of each stage read ──┼─> SHA-256 ─> equal to the finished stage's: skip it
    bytes of each file read ───────────┘

A stage that ran again has a new manifest, so whatever reads it is run again too.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tutelage.config import Section, Stage, TrainStage
from tutelage.errors import DataError
from tutelage.pipeline.references import References
from tutelage.tracking.fingerprint import file_fingerprint, fingerprint
from tutelage.tracking.manifest import MANIFEST, Manifest, verify
from tutelage.tracking.stage import StageInfo

__all__ = ["STAGE_FORMAT", "describe_stage", "difference", "stage_seed"]

STAGE_FORMAT = 1
"""Raised when a stage of the same configuration writes other results than before."""


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
        CheckpointError: a finished stage it reads is damaged.
    """
    inputs = {name: _input(name, references) for name in dict.fromkeys(stage.references())}
    inputs |= _functions(stage)
    config = stage.to_json()
    identity = {
        "format": STAGE_FORMAT,
        "kind": stage.kind,
        "config": _without_seed(config),
        "seed": seed,
        "inputs": inputs,
    }
    return StageInfo(stage.kind, config, fingerprint(identity), inputs, seed)


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


def _functions(stage: Section) -> dict[str, str]:
    if not isinstance(stage, TrainStage):
        return {}
    files = dict.fromkeys(name.rpartition(":")[0] for name in stage.reward.functions)
    for file in files:
        if not Path(file).is_file():
            raise DataError(
                f"reward.functions names {file!r}, which is no file: write path/to/file.py:name"
            )
    return {file: file_fingerprint(Path(file)) for file in files}
