import io
import multiprocessing
import re

import pytest
from rich.console import Console

from tutelage.tracking.progress import (
    NullProgress,
    Progress,
    ProgressDisplay,
    StageFailed,
    StageFinished,
    StageMessage,
    StageProgress,
    StageStarted,
)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def piped(clock, events):
    """What a pipe receives from events, each given with the seconds that pass before it."""
    file = io.StringIO()
    display = ProgressDisplay(Console(file=file), every=5.0, clock=clock)
    with display:
        for seconds, event in events:
            clock.now += seconds
            display.handle(event)
    return file.getvalue()


def test_a_pipe_gets_few_plain_lines_and_one_when_a_stage_ends(clock):
    numbers = {"reward/score": 1.25, "kl/sequence": 3.5, "policy/loss": 9.0}
    text = piped(
        clock,
        [
            (0, StageStarted("ppo", 40)),
            (2, StageProgress("ppo", 4, 40, numbers, 5210.4)),
            (3, StageProgress("ppo", 10, 40, numbers, 5210.4)),
            (4, StageProgress("ppo", 18, 40, numbers, 5210.4)),
            (1, StageProgress("ppo", 20, 40, numbers)),
            (10, StageFinished("ppo", 20.04, {"reward/score": 2.0, "sft/tokens": 5.0})),
        ],
    )
    assert text == (
        "[ppo] started, 40 steps\n"
        "[ppo] 10/40 (25 %), 5,210 tokens/s, reward 1.25, KL 3.5, 15 s left\n"
        "[ppo] 20/40 (50 %), reward 1.25, KL 3.5, 10 s left\n"
        "[ppo] done in 20 s, reward 2\n"
    )


def test_stages_that_run_together_are_told_apart(clock):
    text = piped(
        clock,
        [
            (0, StageStarted("a")),
            (1, StageStarted("b", 1200)),
            (4, StageProgress("a", 7)),
            (1, StageProgress("b", 600)),
            (0, StageFinished("a", 6)),
            (1, StageFailed("b", "no space left\non device")),
        ],
    )
    assert text == (
        "[a] started\n"
        "[b] started, 1,200 steps\n"
        "[a] step 7\n"
        "[b] 600/1200 (50 %), 5 s left\n"
        "[a] done in 6.0 s\n"
        "[b] failed: no space left on device\n"
    )


def test_messages_are_always_shown_and_cannot_steer_the_terminal(clock):
    text = piped(
        clock,
        [
            (0, StageMessage("sft", "vocabulary of 512 :smile: [bold]tokens[/bold]")),
            (0, StageMessage("sft", "\x1b[31mred\r\nsecond " + "long " * 40)),
        ],
    )
    assert text == (
        "[sft] started\n"
        "[sft] vocabulary of 512 :smile: [bold]tokens[/bold]\n"
        "[sft] [31mred  second " + ("long " * 40).strip() + "\n"
    )
    assert all(char.isprintable() or char == "\n" for char in text)


def test_a_terminal_shows_a_bar_per_running_stage_and_keeps_a_line_per_finished_one(clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None, _environ={})
    with ProgressDisplay(console, clock=clock) as display:
        display.handle(StageStarted("sft", 200))
        clock.now += 30
        display.handle(StageProgress("sft", 50, 200, {"sft/loss": 1.5}, 900.0))
        display.handle(StageStarted("labels"))
        display.handle(StageMessage("labels", "reading"))
        display.handle(StageFinished("sft", 120, {"sft/loss": 1.0}))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert re.search(r"sft +━.* 50/200 \(25 %\) 900 tokens/s · loss 1.5 · 1 min 30 s left", text)
    assert re.search(r"· labels +reading", text)
    assert re.search(r"✓ sft +done in 2 min 00 s, loss 1", text)
    assert "sft" not in text[text.index("✓ sft") + 8 :]


def test_progress_sends_events_in_order_and_not_too_often(clock):
    sent = []
    progress = Progress("sft", sent.append, every=1.0, clock=clock)
    progress.start(10)
    for step in range(1, 11):
        clock.now += 0.4
        progress.step(step, 10, {"sft/loss": 1, "throughput/tokens_per_second": 50})
    progress.message("done soon")
    progress.finish(4.0, {"sft/loss": 1})
    progress.fail("not really")
    numbers = {"sft/loss": 1.0, "throughput/tokens_per_second": 50.0}
    assert sent == [
        StageStarted("sft", 10),
        *(StageProgress("sft", step, 10, numbers, 50.0) for step in (1, 4, 7, 10)),
        StageMessage("sft", "done soon"),
        StageFinished("sft", 4.0, {"sft/loss": 1.0}),
        StageFailed("sft", "not really"),
    ]


def test_events_pass_through_a_queue_between_processes():
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    progress = Progress("sft", queue.put)
    progress.start(3)
    progress.step(3, 3, {"sft/loss": 0.5})
    assert queue.get() == StageStarted("sft", 3)
    assert queue.get() == StageProgress("sft", 3, 3, {"sft/loss": 0.5})


def test_null_progress_reports_to_nobody(capsys):
    progress = NullProgress()
    progress.start(1)
    progress.step(1, 1, {"a/b": 1.0})
    progress.message("x")
    progress.finish(1.0)
    assert capsys.readouterr() == ("", "")
