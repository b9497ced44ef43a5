"""A stage function for tests: what it does stands in the configuration's `model`.

org/ok               writes a file and succeeds
org/wait             succeeds once another stage of the same run waits too
org/slow             leaves its process id in `mark` beside the run and goes on for a minute
org/fail_after_slow  fails once the mark is there
org/count            counts to five, saves itself on the way, fails at three the first time
org/stuck            as slow, but has something to save and never comes to a boundary
org/<other>          fails, see `_FAILURES`
"""

import errno
import os
import random
import signal
import sys
import time
import warnings

from tutelage.errors import TrainingError

__all__ = ["run"]


def run(config, context):
    action = config.model.rpartition("/")[2]
    read = [path.read_text() for path in context.resolve_all(config.data, "out.txt")]
    (context.folder / "out.txt").write_text(f"{context.name}({','.join(read)})")
    context.progress.step(1, 2, {"sft/loss": 0.5})
    if action == "log":
        context.metrics.log(1, {"sft/loss": 0.5})
    elif action == "print":
        print("printed by a library")
        warnings.warn("warned by a library", stacklevel=1)
    elif action == "wait":
        _meet(context)
    elif action == "slow":
        _mark(context).write_text(str(os.getpid()))
        time.sleep(60)
    elif action == "count":
        return _count(context)
    elif action == "stuck":
        with context.checkpoints.track(totals={}):
            _mark(context).write_text(str(os.getpid()))
            time.sleep(60)
    elif action == "gold":
        from tutelage.worlds.helpdesk import gold

        return {"calls_before": gold.calls()}
    elif action in _FAILURES:
        _FAILURES[action](context)
    return {
        "sft/loss": 0.25,
        "threads": context.threads,
        "seed": context.seed,
        "hash": hash("text") % 1000,
        "random": random.random(),
    }


def _count(context):
    counted, failed_before = [], _mark(context)
    with context.checkpoints.track(counted=counted) as checkpoints:
        began = checkpoints.resumed_at
        for number in range(began, 5):
            context.metrics.log(number, {"sft/loss": 1.0 / (1 + number)})
            counted.append(number)
            checkpoints.boundary(number + 1)
            if number == 2 and not failed_before.exists():
                failed_before.touch()
                raise TrainingError("three is enough")
    return {"began": began, "sum": sum(counted)}


def _mark(context):
    return context.folder.parents[2] / "mark"


def _meet(context):
    meeting = context.folder.parent.parent / "meeting"
    meeting.mkdir(exist_ok=True)
    (meeting / context.name).touch()
    deadline = time.monotonic() + 30
    while len(list(meeting.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise TrainingError("nobody came")
        time.sleep(0.01)


def _diverge(context):
    raise TrainingError("the ratio is 1.7, expected 1")


def _crash(context):
    raise RuntimeError("something\nunexpected")


def _fill_disk(context):
    with open("/dev/full", "w") as file:
        file.write("x")


def _report_full_disk(context):
    raise OSError(errno.ENOSPC, "No space left on device", str(context.folder / "model"))


def _be_killed(context):
    os.kill(os.getpid(), signal.SIGKILL)


def _fail_after_slow(context):
    deadline = time.monotonic() + 30
    while not _mark(context).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    raise TrainingError("after slow")


def _exit(context):
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)


_FAILURES = {
    "diverge": _diverge,
    "crash": _crash,
    "full": _fill_disk,
    "full_named": _report_full_disk,
    "killed": _be_killed,
    "exit": _exit,
    "fail_after_slow": _fail_after_slow,
}
