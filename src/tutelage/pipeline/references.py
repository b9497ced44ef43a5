"""What a reference in a recipe stands for.

    sft                   stage `sft` of this run     -> stages/sft/<default>
    world/rl.jsonl        a file of stage `world`     -> stages/world/rl.jsonl
    inputs/reviews        the user's file or files    -> as given
    runs/a/stages/sft     a finished stage elsewhere  -> runs/a/stages/sft/<default>
    data/prompts.jsonl    any other file or folder    -> itself
    org/model             where a model is wanted and no such path exists: a hub's name

The first line that fits decides. `default` is what the reader wants of a stage, such as
`model` or `prompts.jsonl`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from tutelage.errors import DataError
from tutelage.tracking.manifest import MANIFEST

__all__ = ["MEMBERS", "MODEL", "References"]

MODEL = "model"
"""The default that may be a name on a model hub."""
MEMBERS = "members"
"""The folder beside a reward model that holds its ensemble."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_FILE = re.compile(r"\.(jsonl?|csv|txt|tsv|parquet)(\.gz)?$|\.gz$")


@dataclass(frozen=True)
class References:
    """Resolves the references of one run."""

    stages: Mapping[str, Path] = field(default_factory=dict)
    """Folder of each stage, finished or to come."""
    inputs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """The user's files by name."""

    def resolve(self, reference: str, default: str) -> Path:
        """The one file or folder that `reference` names.

        Raises:
            DataError: it names nothing that exists, or an input of several files.
        """
        paths = self._paths(reference, default)
        if len(paths) != 1:
            raise DataError(
                f"{reference!r} stands for {len(paths)} files "
                f"({', '.join(map(str, paths))}), only one is allowed here"
            )
        return paths[0]

    def resolve_all(self, references: Sequence[str], default: str) -> list[Path]:
        """The paths of all references, in order.

        Raises:
            DataError: a reference names nothing that exists.
        """
        return [path for name in references for path in self._paths(name, default)]

    def stage_folder(self, reference: str) -> Path | None:
        """The folder of the stage of this run that `reference` reads, if it reads one."""
        return self.stages.get(reference.partition("/")[0])

    def outside(self, reference: str) -> tuple[Path, ...]:
        """The paths, or the hub's name, of a reference that leads out of this run.

        Raises:
            DataError: no such path exists, and it cannot be a hub's name.
        """
        first, _, rest = reference.partition("/")
        if first == "inputs" and rest in self.inputs:
            return tuple(_existing(path, rest) for path in self.inputs[rest])
        path = Path(reference).expanduser()
        if path.exists() or _may_be_on_hub(reference):
            return (path,)
        raise DataError(self._not_found(reference, "file or folder"))

    def _paths(self, reference: str, default: str) -> tuple[Path, ...]:
        folder = self.stage_folder(reference)
        if folder is not None:
            return (_in_stage(reference, folder, reference.partition("/")[2] or default),)
        paths = self.outside(reference)
        if all(path.exists() for path in paths):
            return tuple(
                _in_stage(reference, path, default) if (path / MANIFEST).is_file() else path
                for path in paths
            )
        if default == MODEL:
            return paths
        raise DataError(self._not_found(reference, default))

    def _not_found(self, reference: str, wanted: str) -> str:
        known = [*self.stages, *(f"inputs/{name}" for name in self.inputs)]
        close = get_close_matches(reference.partition("/")[0], known, 1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        stages = f"is no stage ({', '.join(self.stages)}) and " if self.stages else ""
        return f"{reference!r} {stages}does not exist in {Path.cwd()}; wanted: {wanted}{hint}"


def _in_stage(reference: str, folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        raise DataError(
            f"{reference!r} needs {path}, which does not exist; "
            f"{folder} holds {', '.join(held) or 'nothing'}"
        )
    return path


def _existing(path: Path, name: str) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise DataError(f"inputs.{name}: {path} does not exist (looked for {path.absolute()})")
    return path


def _may_be_on_hub(reference: str) -> bool:
    return bool(_HUB_NAME.fullmatch(reference)) and not _DATA_FILE.search(reference)
