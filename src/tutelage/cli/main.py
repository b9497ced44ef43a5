"""`tutelage`: the commands, and what becomes of their errors.

A user's error is one message on standard error and an exit code; a traceback appears only
with `TUTELAGE_DEBUG=1`.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from cyclopts import App, CycloptsError

from tutelage.cli.annotate import annotate
from tutelage.cli.constitution import build_constitution_app
from tutelage.cli.feedback import build_feedback_app
from tutelage.cli.guard import guard_command
from tutelage.cli.judge import judge_command
from tutelage.cli.lab import build_lab_app
from tutelage.cli.plan import plan
from tutelage.cli.reward import build_reward_app
from tutelage.cli.run import resume, run
from tutelage.cli.serve import serve_reward
from tutelage.cli.stages import STAGE_COMMANDS, stage_command
from tutelage.cli.tools import compare, config, report, validate
from tutelage.errors import TutelageError
from tutelage.pipeline.interrupts import Terminated, TimeLimitReached

__all__ = ["build_app", "call", "guard", "main"]

_HELP = """\
Aligns language models with human and AI feedback: supervised fine-tuning, preferences,
reward model, PPO, evaluation, report.
"""

_EPILOGUE = """\
Exit codes: 0 success; 1 failure; 2 wrong input, option or recipe, or
one that does not fit into memory; 3 training cannot go on (the
message is the diagnosis); 4 a saved stage or run folder is damaged, locked or cannot be written;
5 a stage made no progress for too long; 124 time limit; 130 Ctrl-C; 143 SIGTERM. TUTELAGE_DEBUG=1
shows tracebacks.
"""

_WRONG_OPTION = 2
_INTERRUPTIONS = {TimeLimitReached: 124, Terminated: 143, KeyboardInterrupt: 130}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    Args:
        arguments: As typed after `tutelage`; those of the process by default.
    """
    return guard(lambda: call(build_app(), arguments))


def call(app: App, arguments: Sequence[str] | None) -> Any:
    """Parses the arguments and calls their command; whatever goes wrong is raised."""
    return app(
        arguments if arguments is None else list(arguments),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )


def guard(command: Callable[[], Any]) -> int:
    """Calls a command and turns what it raises into a message and an exit code.

    Returns:
        What the command returns where that is a number, else 0; or the code of its error.
    """
    try:
        code = command()
    except CycloptsError as error:
        return _fail(error, f"{error}\nSee: tutelage --help", _WRONG_OPTION)
    except TutelageError as error:
        return _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return _fail(error, str(error) or "interrupted", _INTERRUPTIONS[type(error)])
    except BrokenPipeError:
        # Whoever read the output has enough; Python would complain again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        advice = "TUTELAGE_DEBUG=1 shows the traceback"
        return _fail(error, f"unexpected {type(error).__name__}: {error}; {advice}", 1)
    return code if isinstance(code, int) else 0


def build_app() -> App:
    """The application with all its commands."""
    app = App(
        name="tutelage",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        version=metadata.version("tutelage"),
        suppress_keyboard_interrupt=False,
    )
    commands: dict[str, Callable[..., Any]] = {
        "run": run,
        "resume": resume,
        "plan": plan,
        **{kind: stage_command(section) for kind, section in STAGE_COMMANDS.items()},
        "judge": judge_command(),
        "serve-reward": serve_reward,
        "annotate": annotate,
        "guard": guard_command(),
        "report": report,
        "compare": compare,
        "validate": validate,
        "config": config,
    }
    for position, (name, command) in enumerate(commands.items()):
        app.command(command, name=name, sort_key=position)
    app.command(build_reward_app(sort_key=len(commands)))
    app.command(build_feedback_app(sort_key=len(commands) + 1))
    app.command(build_constitution_app(sort_key=len(commands) + 2))
    app.command(build_lab_app(sort_key=len(commands) + 3))
    return app


def _fail(error: BaseException, message: str, code: int) -> int:
    if os.environ.get("TUTELAGE_DEBUG") == "1":
        traceback.print_exception(error)
    print(f"tutelage: {message}", file=sys.stderr)
    return code
