"""`manifest.json`: what made a stage's folder, and the hash of each of its files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tutelage.errors import CheckpointError
from tutelage.tracking.fingerprint import file_fingerprint

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "describe_files",
    "file_fault",
    "load_manifest",
    "verify",
]

MANIFEST = "manifest.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file must be to count as undamaged."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished stage, as its `manifest.json` tells it."""

    kind: str
    stage: str
    config: Mapping[str, Any]
    fingerprint: str
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int
    started: str
    """UTC, ISO 8601; so is `finished`."""
    finished: str
    seconds: float
    metrics: Mapping[str, float | None]
    """The numbers that sum the stage up; None stands for one that was not finite."""
    files: Mapping[str, FileEntry]
    """By path relative to the folder; the manifest itself is not among them."""

    def to_json(self) -> dict[str, Any]:
        """All fields, with the version of this form as `schema`."""
        return {"schema": _SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`.

        Raises:
            CheckpointError: a newer Tutelage wrote it.
        """
        if row["schema"] != _SCHEMA:
            raise CheckpointError(
                f"the manifest has schema {row['schema']}, this Tutelage reads {_SCHEMA}: "
                "upgrade Tutelage or run the stage again"
            )
        fields = {key: value for key, value in row.items() if key != "schema"}
        fields["files"] = {path: FileEntry(**entry) for path, entry in row["files"].items()}
        return cls(**fields)


def load_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a finished stage.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a finished stage: it has no {MANIFEST}. Run the stage first"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): delete {folder} and run the stage again"
        ) from error


def verify(folder: Path) -> Manifest:
    """Checks every file of a finished stage against its manifest, which it returns.

    Raises:
        CheckpointError: a file is missing or differs; the message names it.
    """
    manifest = load_manifest(folder)
    for name, entry in manifest.files.items():
        fault = file_fault(folder / name, entry)
        if fault:
            raise CheckpointError(f"{folder / name} {fault}: delete {folder} and run it again")
    return manifest


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Hash and size of every file below a folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(file_fingerprint(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def file_fault(path: Path, entry: FileEntry) -> str:
    """What is wrong with a file, to be read after its name; empty when nothing is."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry.bytes:
        return f"is damaged ({size} bytes instead of {entry.bytes})"
    if file_fingerprint(path) != entry.sha256:
        return "is damaged (its SHA-256 differs from the manifest)"
    return ""
