"""What `make setup` decides before it installs anything."""

import sys
import tomllib
from pathlib import Path

import bootstrap
import pytest

ROOT = Path(__file__).resolve().parent.parent
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"


def wheel(folder: Path, version: str, tag: str = TAG, machine: str = "x86_64") -> None:
    (folder / f"torch-{version}-{tag}-{tag}-manylinux_2_28_{machine}.whl").touch()


def test_newest_wheel_of_a_folder_is_chosen_by_number(tmp_path):
    wheel(tmp_path, "2.9.1+cpu")
    wheel(tmp_path, "2.13.0+cpu")
    assert bootstrap.newest_torch(tmp_path, "x86_64") == "2.13.0+cpu"


def test_wheels_for_another_python_or_machine_are_passed_over(tmp_path):
    wheel(tmp_path, "2.13.0", tag="cp27")
    wheel(tmp_path, "2.14.0", machine="aarch64")
    assert bootstrap.newest_torch(tmp_path, "x86_64") is None


def test_old_python_is_refused_with_a_way_out():
    with pytest.raises(bootstrap.SetupError, match=r"3\.11 or newer.*make setup PYTHON="):
        bootstrap.check_python((3, 10))


def test_torch_is_required_as_the_project_states_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert bootstrap.required_torch() in project["dependencies"]


def test_installed_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(bootstrap.EXTRAS.split(",")) <= set(project["optional-dependencies"])


def test_failing_command_says_why():
    with pytest.raises(bootstrap.SetupError, match=r"no luck\n  exit code 3"):
        bootstrap.run([sys.executable, "-c", "raise SystemExit(3)"], "no luck")


def test_missing_command_says_why():
    with pytest.raises(bootstrap.SetupError, match="no luck: "):
        bootstrap.run([ROOT / "no-such-program"], "no luck")
