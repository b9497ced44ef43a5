"""A layer that is missing is named, and nothing runs. Each layer is really taken away."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tutelage import rewards
from tutelage.rewards.sandbox import Sandbox, SandboxStatus, SandboxUnavailable
from tutelage.rewards.sandbox.command import find_bubblewrap

WRAPPER = """#!{python}
import os, sys
arguments = {edit}(sys.argv[1:])
os.execv({bubblewrap!r}, ["bwrap", *arguments])
"""

# What bubblewrap is made to leave out, or to add: (layer that must be named, change).
CHANGES = {
    "network namespace": "lambda a: [x for x in a if x != '--unshare-net']",
    "ipc namespace": "lambda a: [x for x in a if x != '--unshare-ipc']",
    "uts namespace": "lambda a: [x for x in a if x not in ('--hostname', 'sandbox')]",
    "mount namespace": "lambda a: ['--ro-bind', '/etc', '/etc', *a]",
    "read-only root": (
        "lambda a: [x for i, x in enumerate(a) if a[i:i+2] != ['--remount-ro', '/'] "
        "and a[i-1:i+1] != ['--remount-ro', '/']]"
    ),
    "limit on files in /tmp": ("lambda a: a[:a.index('/tmp') - 3] + a[a.index('/tmp') - 1:]"),
    "working start": "lambda a: [x for x in a if x != '--unshare-pid']",
}


@pytest.fixture
def other_bubblewrap(sandbox, monkeypatch):
    """Puts a bubblewrap on PATH that changes its arguments."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # nobody must be able to run it

        def put(edit):
            wrapper = Path(folder) / "bwrap"
            text = WRAPPER.format(python=sandbox.python, edit=f"({edit})", bubblewrap=BUBBLEWRAP)
            wrapper.write_text(text)
            wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            monkeypatch.setenv("PATH", folder)

        BUBBLEWRAP = find_bubblewrap()
        yield put


@pytest.mark.parametrize("layer", CHANGES)
def test_missing_layer_is_named(other_bubblewrap, layer):
    other_bubblewrap(CHANGES[layer])
    with pytest.raises(SandboxUnavailable, match=f"has no {layer}") as caught:
        Sandbox()
    assert caught.value.layer == layer


def test_bubblewrap_that_changes_nothing_is_accepted(other_bubblewrap):
    other_bubblewrap("lambda a: a")
    assert Sandbox().run("print(1)").stdout == "1\n"


def test_missing_bubblewrap_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        Sandbox()


# The package above imports torch, which takes seconds and has no part in this.
CREATE = f"""
import sys, types
sys.modules["tutelage.rewards"] = rewards = types.ModuleType("tutelage.rewards")
rewards.__path__ = [{str(Path(rewards.__file__).parent)!r}]
from tutelage.rewards.sandbox import Sandbox, SandboxUnavailable
try:
    Sandbox()
except SandboxUnavailable as error:
    print(error.layer, "|", error)
"""


def create_inside(*options):
    """Makes a sandbox in a system that bubblewrap has changed."""
    done = subprocess.run(
        [find_bubblewrap(), "--dev-bind", "/", "/", *options, sys.executable, "-c", CREATE],
        capture_output=True,
        text=True,
    )
    return done.stdout.partition(" | ")


def test_system_without_user_namespaces_is_refused(sandbox):
    user = ("--unshare-user", "--uid", "1000", "--disable-userns")
    layer, _, message = create_inside(*user)
    assert layer == "working start"
    assert "kernel.unprivileged_userns_clone" in message


def test_missing_seccomp_library_says_what_to_install(sandbox):
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    paths = [line.split(" => ")[1] for line in listed.splitlines() if "libseccomp.so.2" in line]
    hidden = [part for path in paths for part in ("--ro-bind", "/dev/null", os.path.realpath(path))]
    layer, _, message = create_inside(*hidden)
    assert layer == "seccomp filter"
    assert "Install libseccomp" in message


def test_interpreter_that_is_not_there_is_named():
    find_bubblewrap_or_skip()
    with pytest.raises(SandboxUnavailable, match="/no/python cannot be started"):
        Sandbox(python="/no/python")


def find_bubblewrap_or_skip():
    try:
        find_bubblewrap()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_full_disk_is_an_error_of_the_sandbox_not_of_the_program(make_sandbox):
    result = make_sandbox(disk_bytes=1 << 20).run("print(1)", files={"big": "x" * (2 << 20)})
    assert result.status is SandboxStatus.ERROR
    assert "No space left" in result.stderr
