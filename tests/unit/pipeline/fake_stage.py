"""A stage function for tests: what it does stands in the configuration's `model`.

org/ok               writes a file and succeeds
org/wait             succeeds once another stage of the same run waits too
org/slow             leaves its process id in `mark` beside the run and goes on for a minute
org/fail_after_slow  fails once the mark is there
org/count            counts to five, saves itself on the way, fails at three the first time
org/stuck            has something to save and never comes to a boundary, for ten minutes; leaves
                     its process id in `mark-NAME`
org/steps            saves itself every 10 ms, for ten minutes, and leaves its process id in both
org/silent           reports three steps, waits for the mark of a stage beside it where there
                     is one, and is not heard of any more
org/hold             as slow, but within one call that never gives the interpreter away
org/chatter          prints a megabyte and succeeds
org/weights          trains a layer of three weights, and is done when its fourth step is
org/<other>          fails, see `_FAILURES`
"""

import errno
import itertools
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
    if action in _FAILURES:
        _FAILURES[action](context)
    elif action in _ACTIONS:
        numbers = _ACTIONS[action](context)
        if numbers is not None:
            return numbers
    return {
        "sft/loss": 0.25,
        "threads": context.threads,
        "seed": context.seed,
        "hash": hash("text") % 1000,
        "random": random.random(),
        "large_pages": int(os.environ["THP_MEM_ALLOC_ENABLE"]),
    }


def _log(context):
    context.metrics.log(1, {"sft/loss": 0.5})


def _log_often(context):
    for step in range(5):
        context.metrics.log(step, {"sft/loss": 0.5})


def _print(context):
    print("printed by a library")
    warnings.warn("warned by a library", stacklevel=1)


def _slow(context):
    _mark(context).write_text(str(os.getpid()))
    time.sleep(60)


def _stick(context):
    with context.checkpoints.track(totals={}):
        _own_mark(context).write_text(str(os.getpid()))
        time.sleep(600)


def _see_gold(context):
    from tutelage.worlds.helpdesk import gold

    return {"calls_before": gold.calls()}


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


def _steps(context):
    counted = []
    with context.checkpoints.track(counted=counted) as checkpoints:
        _mark(context).write_text(str(os.getpid()))
        for number in range(60_000):
            time.sleep(0.01)
            counted.append(number)
            context.progress.step(number + 1, 60_000)
            checkpoints.boundary(number + 1)
            if number == 0:
                _own_mark(context).write_text(str(os.getpid()))


def _silent(context):
    for step in (1, 2, 3):
        context.progress.step(step, 3)
        time.sleep(0.25)
    beside = [path for path in context.folder.parent.iterdir() if path != context.folder]
    while beside and not _mark(context).exists():
        context.progress.step(3, 3)
        time.sleep(0.25)
    time.sleep(60)


def _hold(context):
    _mark(context).write_text(str(os.getpid()))
    sum(itertools.repeat(0))


def _chatter(context):
    for _ in range(16):
        print("x" * 65_536)
        print("x" * 65_536, file=sys.stderr)


def _train(context):
    """Each step adds 1 to the weights, and its number to what the optimiser remembers."""
    import torch

    layer, optimiser, interrupted = torch.nn.Linear(3, 1, bias=False), {"sum": 0}, _mark(context)
    torch.nn.init.zeros_(layer.weight)
    with context.checkpoints.track(layer=layer, optimiser=optimiser) as checkpoints:
        began = checkpoints.resumed_at
        for step in range(began, 4):
            layer.weight.data += 1
            optimiser["sum"] += step + 1
            checkpoints.boundary(step + 1)
            if step == 2 and not interrupted.exists():
                interrupted.touch()
                raise TrainingError("interrupted")
    return {"began": began, "weight": layer.weight[0, 0].item(), "remembered": optimiser["sum"]}


def _mark(context):
    return context.folder.parents[2] / "mark"


def _own_mark(context):
    return context.folder.parents[2] / f"mark-{context.name}"


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

_ACTIONS = {
    "log": _log,
    "log_often": _log_often,
    "print": _print,
    "wait": _meet,
    "slow": _slow,
    "stuck": _stick,
    "gold": _see_gold,
    "count": _count,
    "steps": _steps,
    "silent": _silent,
    "hold": _hold,
    "chatter": _chatter,
    "weights": _train,
}
