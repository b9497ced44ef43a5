"""The command line: every command's options, help and exit code."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code.

    Args:
        arguments: As typed after `tutelage`; those of the process by default.
    """
    try:
        # Ctrl-C while the libraries are still being imported is the user's as much as later.
        from tutelage.cli.main import main as run_command
    except KeyboardInterrupt:
        print("tutelage: interrupted", file=sys.stderr)
        return 130
    return run_command(arguments)
