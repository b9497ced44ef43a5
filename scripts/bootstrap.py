"""Creates .venv and installs Tutelage into it. Standard library only; `make setup` calls it.

    Python 3.11+ ──> .venv ──> uv (or pip) ──> torch for this machine ──> Tutelage with extras

torch is chosen first and on its own, because its default build on Linux brings
gigabytes of CUDA libraries:

    already in .venv                        keep it
    a wheel in pip's find-links folder      that version
    macOS                                   the default build
    nvidia-smi answers                      the build for the installed driver
    otherwise                               the CPU build

Everything else is pinned by constraints.txt. Running it again is safe: what is
there is kept.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
EXTRAS = "track,report,lexicon,lora,labs,serve,verifiers,judge,annotate,data,postgresql,dev"
OLDEST = (3, 11)


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def main() -> int:
    """Runs the steps in order; returns the exit code."""
    try:
        check_python()
        create_environment()
        uv = install_uv()
        links = torch_folder()
        if not has_torch():
            install_torch(uv, links)
        say(f"Tutelage and its pinned dependencies ({EXTRAS})")
        install([*constrained(), "--editable", f"{ROOT}[{EXTRAS}]"], uv, links)
        run(
            [PYTHON, "-c", "import torch, transformers, tutelage"], "the installation is incomplete"
        )
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    say("done: .venv is ready")
    return 0


def check_python(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Refuses an interpreter that is too old."""
    if version < OLDEST:
        raise SetupError(
            f"Python {platform.python_version()} at {sys.executable} is too old, 3.11 or newer is "
            "needed: install one and name it, for example 'make setup PYTHON=python3.12'"
        )


def create_environment() -> None:
    """Creates .venv, or replaces one whose interpreter no longer runs."""
    if PYTHON.exists() and succeeds([PYTHON, "-m", "pip", "--version"]):
        return
    say(f".venv with Python {platform.python_version()}")
    run(
        [sys.executable, "-m", "venv", "--clear", VENV],
        "Python could not create a virtual environment (on Debian and Ubuntu: "
        "apt install python3-venv)",
    )


def install_uv() -> bool:
    """Installs uv into .venv; returns whether it is there. pip does the work where it is not."""
    if not succeeds([PYTHON, "-m", "uv", "--version"]):
        say("uv, the installer")
        if not succeeds([PYTHON, "-m", "pip", "install", "--quiet", *constrained(), "uv"]):
            say("uv cannot be installed here: pip takes its place, which is slower")
            return False
    return True


def install_torch(uv: bool, links: Path | None) -> None:
    """Installs the build of torch that fits this machine."""
    wheel = newest_torch(links) if links else None
    if wheel:
        say(f"torch {wheel} from {links}")
        install([f"torch=={wheel}"], uv, links)
    elif platform.system() == "Darwin":
        say("torch, default build")
        install([required_torch()], uv, links)
    elif not uv:
        say("torch, default build: pip cannot choose one without CUDA, expect about 3 GB")
        install([required_torch()], uv, links)
    else:
        backend = "auto" if succeeds(["nvidia-smi"]) else "cpu"
        say(f"torch, build: {backend}")
        install([required_torch(), "--torch-backend", backend], uv, links)


def install(arguments: list[str], uv: bool, links: Path | None) -> None:
    """Calls uv, which is shown the folder that pip would search, or pip."""
    if uv:
        command = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON, *arguments]
    else:
        command = [PYTHON, "-m", "pip", "install", "--quiet", *arguments]
    environment = dict(os.environ)
    if links:
        environment["UV_FIND_LINKS"] = str(links)
    run(command, "the packages above could not be installed", environment)


def torch_folder() -> Path | None:
    """The folder of pip's `find-links` setting (or `UV_FIND_LINKS`) that holds a torch wheel."""
    settings = output([PYTHON, "-m", "pip", "config", "list"])
    found = re.findall(r"^\S*find-links='([^']*)'", settings, re.MULTILINE)
    places = [os.environ.get("UV_FIND_LINKS", "").replace(",", " "), *found]
    for place in " ".join(places).replace("\\n", " ").split():
        folder = Path(place.removeprefix("file://")).expanduser()
        if folder.is_dir() and newest_torch(folder):
            return folder
    return None


def newest_torch(folder: Path, machine: str = platform.machine()) -> str | None:
    """The newest version among the folder's torch wheels for this Python and machine."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    versions = [
        wheel.name.split("-")[1]
        for wheel in folder.glob(f"torch-*-{tag}-*.whl")
        if machine in wheel.name
    ]
    return max(
        versions, key=lambda version: [int(n) for n in re.findall(r"\d+", version)], default=None
    )


def required_torch() -> str:
    """The requirement on torch as pyproject.toml states it."""
    found = re.search(r'"(torch[<>=!~][^"]*)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    return found.group(1) if found else "torch"


def has_torch() -> bool:
    """Whether .venv has a torch already."""
    return succeeds([PYTHON, "-c", "import importlib.metadata as m; m.version('torch')"])


def constrained() -> list[str]:
    """The option that pins versions, for uv and pip alike."""
    return ["--constraint", str(CONSTRAINTS)]


def say(what: str) -> None:
    """One line per step, at once, also through a pipe."""
    print(f"setup: {what}", flush=True)


def run(command: list, reason: str, environment: dict[str, str] | None = None) -> None:
    """Runs a command with its output shown; raises with the reason when it fails."""
    try:
        code = subprocess.run([str(part) for part in command], env=environment).returncode
    except OSError as error:
        raise SetupError(f"{reason}: {error}") from error
    if code:
        shown = " ".join(str(part) for part in command)
        raise SetupError(f"{reason}\n  exit code {code} from: {shown}")


def succeeds(command: list) -> bool:
    """Whether a command runs and exits with 0; its output is not shown."""
    if shutil.which(str(command[0])) is None:
        return False
    return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0


def output(command: list) -> str:
    """What a command prints; empty when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
