"""`tutelage annotate` as its users meet it."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tutelage.cli.main import main

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def test_page_is_served_with_a_link_for_the_first_admin_until_it_is_told_to_end(tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    row = {"id": "1", "prompt": [{"role": "user", "content": "q"}], "a": "x", "b": "y"}
    tasks.write_text(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "tutelage", "annotate", str(tmp_path / "labels.sqlite")]
    command += ["--port", "0", "--project", "first", "--tasks", str(tasks)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **streams) as process, ExitStack() as cleanup:
        cleanup.callback(process.kill)
        assert process.stdout.readline() == "1 new tasks in first\n"
        url = process.stdout.readline().strip().removeprefix("annotation page at ")
        link = process.stdout.readline().strip().rpartition(" ")[2]
        assert url.startswith("http://127.0.0.1:")
        assert link.startswith(f"{url}/invite/")
        assert "Join as an admin" in httpx2.get(link, trust_env=False).text
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate()
    assert complaints == ""
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--port", "70000"], "--port is a number up to 65535"),
        (["--tasks", "x.jsonl"], "need the --project"),
        (["--url", "label.example.org"], "--url is like https"),
        (["--project", "p", "--guidelines", "missing.md"], "cannot read the guidelines"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, capsys, arguments, complaint):
    assert main(["annotate", str(tmp_path / "labels.sqlite"), *arguments]) == 2
    assert complaint in capsys.readouterr().err
