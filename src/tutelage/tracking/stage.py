"""A stage's folder: invisible while it is written, complete once it has its name.

    create ──> stages/.sft.partial/ ──(the stage writes its files)──┐
                                                                    │ success: hash every file,
    failure, Ctrl-C: removed                                        │ write manifest.json, fsync
                                                                    v
               stages/sft/  <──────────────rename───────────────────┘

A folder named `stages/<name>` is thus always a finished stage, and its manifest
says from what, with what and when it was made.
"""

import errno
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from tutelage.errors import ConfigError
from tutelage.tracking.atomic import (
    fsync_folder,
    fsync_tree,
    storage_error,
    storage_errors,
    write_json_atomically,
)
from tutelage.tracking.manifest import MANIFEST, Manifest, describe_files

__all__ = ["StageFolder", "StageInfo", "package_versions", "stage_path"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class StageInfo:
    """What is known about a stage before it runs."""

    kind: str
    config: Mapping[str, Any]
    """The stage's resolved configuration, as JSON values."""
    fingerprint: str
    """Identifies configuration, inputs and seed: equal fingerprints need no second run."""
    inputs: Mapping[str, str]
    """Fingerprint of each stage or file this one reads."""
    seed: int


class StageFolder:
    """The folder a running stage writes into, and the metrics that sum it up."""

    def __init__(self, path: Path, name: str) -> None:
        """For `create`; stages receive theirs from there."""
        self.path = path
        """Where to write: the hidden folder while the stage runs, then its final place."""
        self.name = name
        self.metrics: dict[str, float] = {}
        """The few numbers that go into the manifest, the summary and the report."""
        self.earlier_seconds = 0.0
        """Time that earlier processes spent on what this one took up from a checkpoint."""

    @classmethod
    @contextmanager
    def create(cls, run_folder: Path, name: str, info: StageInfo) -> Iterator[Self]:
        """Opens a working folder and publishes it when the block succeeds.

        A finished stage of the same name stays in place until then. If the block
        fails or is interrupted, the working folder is removed.

        Raises:
            ConfigError: the name cannot be a folder's name.
            CheckpointError: the disk is full or the folder is not writable.
        """
        final = stage_path(run_folder, name)
        partial, stale = final.with_name(f".{name}.partial"), final.with_name(f".{name}.stale")
        started, clock = datetime.now(UTC), time.monotonic()
        folder = cls(partial, name)
        try:
            with storage_errors(final):
                _clear_leftovers(partial, stale, final)
                partial.mkdir(parents=True)
            try:
                yield folder
            except Exception as error:
                if _disk_is_full(error):
                    raise storage_error(final, OSError(errno.ENOSPC, str(error))) from error
                raise
            with storage_errors(final):
                _write_manifest(folder, info, started, time.monotonic() - clock)
                _publish(partial, stale, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        folder.path = final


def stage_path(run_folder: Path, name: str) -> Path:
    """Where the finished stage `name` of a run lives.

    Raises:
        ConfigError: the name cannot be a folder's name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"stage name {name!r} is not allowed: use letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit"
        )
    return run_folder / "stages" / name


def _disk_is_full(error: Exception) -> bool:
    # safetensors reports a full disk by an exception of its own, known only by its text.
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)


def _clear_leftovers(partial: Path, stale: Path, final: Path) -> None:
    # A killed process can leave its working folder, or stop between the two renames
    # of `_publish`, when the finished stage exists only under its stale name.
    if partial.exists():
        shutil.rmtree(partial)
    if stale.exists():
        if final.exists():
            shutil.rmtree(stale)
        else:
            os.rename(stale, final)


def _write_manifest(
    folder: StageFolder, info: StageInfo, started: datetime, seconds: float
) -> None:
    manifest = Manifest(
        kind=info.kind,
        stage=folder.name,
        config=info.config,
        fingerprint=info.fingerprint,
        inputs=info.inputs,
        versions=package_versions(),
        seed=info.seed,
        started=started.isoformat(timespec="milliseconds"),
        finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=round(folder.earlier_seconds + seconds, 3),
        metrics=folder.metrics,
        files=describe_files(folder.path),
    )
    write_json_atomically(folder.path / MANIFEST, manifest.to_json())


def _publish(partial: Path, stale: Path, final: Path) -> None:
    fsync_tree(partial)
    replaces = final.exists()
    if replaces:
        os.rename(final, stale)
    try:
        os.rename(partial, final)
    except BaseException:
        if replaces:
            os.rename(stale, final)
        raise
    fsync_folder(final.parent)
    if replaces:
        shutil.rmtree(stale, ignore_errors=True)


def package_versions() -> dict[str, str]:
    """Of what decides a stage's numbers."""
    versions = {"python": platform.python_version()}
    for package in ("tutelage", "torch", "transformers"):
        versions[package] = metadata.version(package)
    return versions
