"""The command line: every command's options, help and exit code."""

from tutelage.cli.main import main

__all__ = ["main"]
