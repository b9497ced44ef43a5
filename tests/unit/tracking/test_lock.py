import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tutelage.errors import CheckpointError
from tutelage.tracking.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from tutelage.tracking.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path):
    folder = tmp_path / "runs" / "mine"
    with RunLock(folder), pytest.raises(CheckpointError) as caught, RunLock(folder):
        pass
    message = str(caught.value)
    assert f"process {os.getpid()} on {socket.gethostname()} since" in message
    assert "choose another run folder" in message


def test_the_lock_is_free_again_after_use_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), RunLock(tmp_path):
        raise KeyError
    for _ in range(2):
        with RunLock(tmp_path):
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / ".lock").read_bytes() == b""


def test_two_folders_do_not_disturb_each_other(tmp_path):
    with RunLock(tmp_path / "a"), RunLock(tmp_path / "b"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"process {process.pid} on"), RunLock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_folder_that_cannot_exist_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/run"), RunLock(tmp_path / "file" / "run"):
        pass
