"""The peer's environment: its pinned versions in a folder of their own, made on first use.

torch and transformers are the versions of this project's environment, so that a difference
in speed is a difference between the two systems.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.core.process import ROOT

__all__ = ["PEER", "EnvironmentFailed", "python_of"]

PEER = "trl==1.12.0"
"""The last release with `PPOTrainer`; later ones have removed it."""

_FOLDER = ROOT / ".envs" / "trl"


class EnvironmentFailed(Exception):
    """The peer cannot be installed; the message says what was tried."""


def python_of(environment: str) -> Path:
    """The interpreter of an environment; `TUTELAGE_BENCH_PEER` names another peer's."""
    if environment == "tutelage":
        return Path(sys.executable)
    named = os.environ.get("TUTELAGE_BENCH_PEER")
    return Path(named) if named else _made()


def _made() -> Path:
    python = _FOLDER / "bin" / "python"
    ready = _FOLDER / "ready"
    wanted = " ".join(_requirements())
    if ready.exists() and ready.read_text("utf-8") == wanted:
        return python
    print(f"benchmarks: installing {wanted} into {_FOLDER.relative_to(ROOT)}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(_FOLDER)])
    _run([*_installer(python), *_requirements()])
    ready.write_text(wanted, "utf-8")
    return python


def _requirements() -> list[str]:
    return [f"torch=={version('torch')}", f"transformers=={version('transformers')}", PEER]


def _installer(python: Path) -> list[str]:
    """uv where it is, shown the folder that pip would search; pip otherwise."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import bootstrap

    links = bootstrap.torch_folder()
    if links:
        os.environ["UV_FIND_LINKS"] = str(links)
    if bootstrap.succeeds([sys.executable, "-m", "uv", "--version"]):
        return [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet"]


def _run(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        raise EnvironmentFailed(
            f"the peer's environment could not be made: {' '.join(command)} failed. Install "
            f"{PEER} into an environment of your own and name its interpreter in "
            "TUTELAGE_BENCH_PEER"
        )
