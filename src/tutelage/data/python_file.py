"""Names in Python files of the user's own: `path.py:Name` in a recipe."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError

__all__ = ["load_callable"]


def load_callable(path: str, what: str) -> Callable[..., Any]:
    """The function or class that `file.py:Name` refers to; running the file is what finds it.

    Args:
        path: file and name.
        what: it is, for messages.

    Raises:
        ConfigError: the file or the name in it does not exist, or the file cannot be run.
    """
    file, _, name = path.rpartition(":")
    if not file.endswith(".py") or not Path(file).is_file():
        raise ConfigError(f"{what} {path!r}: expected an existing FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(f"tutelage_user_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{what} {path!r}: {file} raised {error!r}") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None or not callable(found):
        names = sorted(k for k, v in vars(module).items() if callable(v) and k[0] != "_")
        raise ConfigError(f"{file} has no function {name!r}: it has {names}")
    return found
