"""Checkpoints of a running stage: complete or not there, and checked before they are used.

    write ──> .00000040.<random>.tmp/ ──hash, manifest.json, fsync──rename──> 00000040/
                                                          └──> older ones are deleted

A checkpoint is a folder named by its step. The newest is the one of the highest step whose
files are what its manifest says; there is no pointer that could be wrong.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import CheckpointError
from tutelage.tracking.atomic import (
    fsync_folder,
    fsync_tree,
    storage_errors,
    write_json_atomically,
)
from tutelage.tracking.fingerprint import fingerprint
from tutelage.tracking.manifest import MANIFEST, FileEntry, describe_files, file_fault

__all__ = ["Checkpoint", "CheckpointStore"]

_SCHEMA = 1
_KEYS = {"schema", "step", "about", "files"}
_NAME = re.compile(r"\d{8,}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint."""

    step: int
    path: Path
    """The folder with its files."""
    about: Mapping[str, Any]
    """What its writer said about it, as JSON."""


class _ForeignCheckpoint(CheckpointError):
    """Undamaged, but written by another version: going back to an older one would lose it."""


class CheckpointStore:
    """The checkpoints of one stage; one process at a time may use them."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        """Keeps the newest `keep` checkpoints in `folder`, which need not exist yet."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, about: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Adds the checkpoint of a step, then deletes those that are not to be kept.

        Args:
            step: names the checkpoint.
            about: JSON values to be found again in `Checkpoint.about`.
            write: fills the folder it is given.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written. All that was
                there before is there still.
        """
        final = self.folder / f"{step:08d}"
        temporary = self.folder / f".{final.name}.{uuid.uuid4().hex[:12]}.tmp"
        try:
            with storage_errors(final):
                temporary.mkdir(parents=True)
                write(temporary)
                _write_manifest(temporary, step, about)
                fsync_tree(temporary)
                if final.exists():
                    # Only a damaged one is ever saved again.
                    self._delete(final)
                os.rename(temporary, final)
                fsync_folder(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._delete_all_but_newest(final)

    def newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None where nothing was ever saved.

        Args:
            report: is told of each damaged checkpoint that was passed over.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged; or the newest
                is whole, but of another version of Tutelage.
        """
        faults: list[str] = []
        for path in reversed(self._complete()):
            try:
                found = _verified(path)
            except _ForeignCheckpoint:
                raise
            except CheckpointError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                report(f"{fault}; the checkpoint of step {found.step} is used instead")
            return found
        if faults:
            raise CheckpointError(
                f"{faults[0]}, and no older checkpoint is undamaged: delete {self.folder} to start "
                "the stage from its beginning"
            )
        return None

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose manifest can be read; its files are not looked at.

        Raises:
            CheckpointError: it is of another version of Tutelage.
        """
        for path in reversed(self._complete()):
            try:
                return _read_manifest(path)[0]
            except _ForeignCheckpoint:
                raise
            except CheckpointError:
                continue
        return None

    def is_empty(self) -> bool:
        """Whether there is no checkpoint at all, not even a damaged one."""
        return not self._complete()

    def tidy(self) -> None:
        """Removes what a killed process left half written or half deleted."""
        for path in self.folder.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)

    def _complete(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name))

    def _delete_all_but_newest(self, newest: Path) -> None:
        # One of a later step than the newest was damaged, or training would not have gone back.
        complete = self._complete()
        until = complete.index(newest) + 1
        kept = complete[max(0, until - self.keep) : until]
        for path in complete:
            if path not in kept:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        # Renamed first: what is deleted by half must not look like a damaged checkpoint.
        doomed = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.old")
        try:
            os.rename(path, doomed)
        except OSError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


def _write_manifest(folder: Path, step: int, about: Mapping[str, Any]) -> None:
    files = {name: asdict(entry) for name, entry in describe_files(folder).items()}
    manifest = {"schema": _SCHEMA, "step": step, "about": about, "files": files}
    write_json_atomically(folder / MANIFEST, {**manifest, "digest": fingerprint(manifest)})


def _read_manifest(folder: Path) -> tuple[Checkpoint, dict[str, FileEntry]]:
    path = folder / MANIFEST
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        # Of every schema: damage must not be taken for another version, nor the reverse.
        if row.pop("digest") != fingerprint(row):
            raise CheckpointError(f"{path} is damaged (its digest differs)")
        _refuse_foreign(path, row)
        files = {name: FileEntry(**entry) for name, entry in row["files"].items()}
        return Checkpoint(int(row["step"]), folder, row["about"]), files
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def _refuse_foreign(path: Path, row: Mapping[str, Any]) -> None:
    unknown = ", ".join(sorted(row.keys() ^ _KEYS))
    if row["schema"] != _SCHEMA:
        fault = f"has schema {row['schema']}, this Tutelage reads {_SCHEMA}"
    elif unknown:
        fault = f"has other keys than expected ({unknown})"
    else:
        return
    raise _ForeignCheckpoint(
        f"{path} {fault}: resume with the Tutelage that wrote it, or delete {path.parent.parent} "
        "to start the stage from its beginning"
    )


def _verified(folder: Path) -> Checkpoint:
    checkpoint, files = _read_manifest(folder)
    if f"{checkpoint.step:08d}" != folder.name:
        raise CheckpointError(f"{folder / MANIFEST} is that of step {checkpoint.step}")
    for name, entry in files.items():
        fault = file_fault(folder / name, entry)
        if fault:
            raise CheckpointError(f"{folder / name} {fault}")
    return checkpoint
