"""What becomes of a stage that was begun before and is not finished.

    checkpoints/<stage>/<identity>/   same settings   ──────────────> goes on
                                      other settings  ──────────────> refused, with the difference
                                           ├── --force ─────────────> begins anew
                                           └── --weights-only ──────> begins anew from its weights

Of a stage's settings only those of `FREE_KEYS` and `ROUNDING_KEYS` may change in between. The
number of threads, `checkpoint.*` and all else that stands outside the stage may change too.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError
from tutelage.pipeline.fingerprint import STAGE_FORMAT
from tutelage.tracking.checkpoint import Checkpoint, CheckpointStore
from tutelage.tracking.fingerprint import file_fingerprint, fingerprint
from tutelage.tracking.manifest import MANIFEST, Manifest
from tutelage.tracking.stage import StageInfo

__all__ = [
    "FREE_KEYS",
    "ROUNDING_KEYS",
    "Beginning",
    "as_begun",
    "begin",
    "changed_settings",
    "has_checkpoints",
    "remove_checkpoints",
    "stage_checkpoints",
]

FREE_KEYS = ("log_samples",)
"""Settings that change nothing but what is written down."""
ROUNDING_KEYS = ("batch.microbatch_tokens", "ppo.batch.microbatch_tokens")
"""Settings that change the order in which numbers are added up, and so their last digits."""

_ROOT = "checkpoints"
_WEIGHTS = "weights of a checkpoint"
"""The input of a stage that began from them."""
_ABSENT = "absent"


@dataclass(frozen=True)
class Beginning:
    """How a stage begins."""

    info: StageInfo
    """The stage, with the weights it starts from among its inputs."""
    folder: Path
    """Where its checkpoints are, or will be."""
    weights: Path | None = None
    """The checkpoint whose weights it starts from, with nothing else of it."""
    note: str = ""
    """For the person who watches."""


def begin(
    run_folder: Path,
    stage: str,
    info: StageInfo,
    *,
    force: bool = False,
    weights_only: bool = False,
) -> Beginning:
    """Decides how a stage begins.

    Args:
        run_folder: Holds `checkpoints/`.
        stage: Its name.
        info: What it is now.
        force: Begin anew where the checkpoints are those of other settings.
        weights_only: Take the weights of the newest checkpoint and nothing else.

    Raises:
        ConfigError: its checkpoints were made with other settings, or there is none to take
            weights from.
        CheckpointError: its newest checkpoint is of another version of Tutelage, or no
            undamaged one has weights to start from.
    """
    earlier = sorted(_unfinished(run_folder, stage), key=_written)
    for checkpoint in earlier:
        inputs = _stage_of(checkpoint).inputs
        if _WEIGHTS in inputs:
            continued = _with_weights(info, inputs[_WEIGHTS])
            if checkpoint.path.parent == stage_checkpoints(run_folder, stage, continued):
                return Beginning(continued, checkpoint.path.parent)
    own = stage_checkpoints(run_folder, stage, info)
    if weights_only:
        if not earlier:
            raise ConfigError(f"--weights-only {stage}: there is no checkpoint of it to start from")
        told: list[str] = []
        source = CheckpointStore(earlier[-1].path.parent).newest(told.append)
        assert source is not None
        started = _with_weights(info, file_fingerprint(source.path / MANIFEST))
        folder = stage_checkpoints(run_folder, stage, started)
        return Beginning(started, folder, source.path, "; ".join(told))
    # A damaged checkpoint of its own is the stage's to name.
    if not earlier or not CheckpointStore(own).is_empty():
        return Beginning(info, own)
    if not force:
        raise ConfigError(_refusal(stage, earlier[-1], info))
    return Beginning(info, own, note=f"begins anew, not from step {earlier[-1].step}: forced")


def as_begun(manifest: Manifest, info: StageInfo) -> StageInfo:
    """The stage as it would be finished again: from the weights that it was begun from."""
    weights = manifest.inputs.get(_WEIGHTS)
    return info if weights is None else _with_weights(info, weights)


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """`{dotted key: (old, new)}` of every value that differs."""
    old, new = _flat(before), _flat(now)
    return {
        key: (old.get(key, _ABSENT), new.get(key, _ABSENT))
        for key in dict.fromkeys([*new, *old])
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    }


def stage_checkpoints(run_folder: Path, stage: str, info: StageInfo) -> Path:
    """Where a stage of this description, but for its free settings, saves itself.

    Another description has another folder: none is continued by mistake, and none lost by one.
    """
    identity = {
        "format": STAGE_FORMAT,
        "kind": info.kind,
        "settings": _settings(info),
        "seed": info.seed,
        "inputs": dict(info.inputs),
    }
    return run_folder / _ROOT / stage / fingerprint(identity)[:16]


def has_checkpoints(run_folder: Path) -> bool:
    """Whether any stage of the run has saved itself and is not finished."""
    return any(
        not CheckpointStore(folder).is_empty() for folder in (run_folder / _ROOT).glob("*/*")
    )


def remove_checkpoints(run_folder: Path, stage: str) -> None:
    """A finished stage needs none."""
    shutil.rmtree(run_folder / _ROOT / stage, ignore_errors=True)
    root = run_folder / _ROOT
    if root.is_dir() and not any(root.iterdir()):
        root.rmdir()


def _unfinished(run_folder: Path, stage: str) -> Iterator[Checkpoint]:
    """The newest checkpoint of each description under which the stage has saved itself."""
    for folder in (run_folder / _ROOT / stage).glob("*"):
        found = CheckpointStore(folder).latest()
        if found is not None:
            yield found


def _written(checkpoint: Checkpoint) -> tuple[float, str]:
    return (checkpoint.path / MANIFEST).stat().st_mtime, checkpoint.path.parent.name


def _stage_of(checkpoint: Checkpoint) -> StageInfo:
    return StageInfo(**checkpoint.about["stage"])


def _with_weights(info: StageInfo, digest: str) -> StageInfo:
    return replace(
        info,
        inputs={**info.inputs, _WEIGHTS: digest},
        fingerprint=fingerprint([info.fingerprint, digest]),
    )


def _refusal(stage: str, found: Checkpoint, info: StageInfo) -> str:
    before = _stage_of(found)
    changes = changed_settings(
        {**_settings(before), "seed": before.seed}, {**_settings(info), "seed": info.seed}
    )
    changes |= changed_settings(
        {f"content of {name}": digest[:12] for name, digest in before.inputs.items()},
        {f"content of {name}": digest[:12] for name, digest in info.inputs.items()},
    )
    lines = [f"  {key}: {old} -> {new}" for key, (old, new) in changes.items()]
    told = "\n".join(lines) or "  made by another version of Tutelage"
    return (
        f"stage {stage} has saved itself at step {found.step} with other settings:\n{told}\n"
        f"Set them back to go on. `tutelage run` begins it anew with --force {stage}, and from the "
        f"weights saved there with --weights-only {stage}; deleting {found.path.parent.parent} "
        "begins anew too"
    )


def _settings(info: StageInfo) -> dict[str, Any]:
    """What may not change between two processes of a stage; the seed in force stands beside it."""
    free = ("seed", *FREE_KEYS, *ROUNDING_KEYS)
    return {key: value for key, value in _flat(info.config).items() if key not in free}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key; empty sections and lists are values."""
    if isinstance(value, Mapping) and value:
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and value:
        pairs = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for key, item in pairs:
        found |= _flat(item, f"{prefix}.{key}" if prefix else key)
    return found
