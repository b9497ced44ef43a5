"""What `tutelage serve-reward` serves: a reward model's folder, or a Python function.

source ──> reward, name, version ──> RewardService

The version is a hash of the file or the folder's files. What a function's file imports is not in
it: serve another file when that changes.
"""

from pathlib import Path

from tutelage.errors import ConfigError
from tutelage.models import RewardModel
from tutelage.pipeline.isolation import GOLD
from tutelage.rewards import FunctionProcess, ModelReward
from tutelage.rewards.service import RewardService
from tutelage.tracking.fingerprint import file_fingerprint, fingerprint

__all__ = ["reward_service"]

_SHOWN = 16
"""Digits of the hash: enough to tell any two apart."""


def reward_service(
    source: str, token: str, *, max_items: int, max_bytes: int, item_seconds: float
) -> RewardService:
    """The service of a reward.

    Args:
        source: a reward model's folder, or `file.py:name`.
        token: that every request must bring.
        max_items, max_bytes: of a request.
        item_seconds: for one completion, where it is a function.

    Raises:
        ConfigError: the source is neither, or the function cannot be loaded.
        ModelError: the folder holds no reward model.
    """
    file, _, name = source.rpartition(":")
    if file.endswith(".py"):
        function = FunctionProcess(
            source,
            item_seconds=item_seconds,
            batch_seconds=item_seconds * max_items,
            forbidden=[GOLD],
        )
        version = fingerprint([name, file_fingerprint(Path(file))])[:_SHOWN]
        return RewardService(
            function, name, version, token, max_items, max_bytes, close=function.close
        )
    folder = Path(source)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{source!r} is no reward: expected a model's folder, with its config.json, or "
            "FILE.py:NAME"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {str(path.relative_to(folder)): file_fingerprint(path) for path in files}
    model = RewardModel.load(folder).requires_grad_(False)
    version = fingerprint(hashes)[:_SHOWN]
    return RewardService(
        ModelReward(model), folder.resolve().name, version, token, max_items, max_bytes
    )
