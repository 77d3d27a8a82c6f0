"""The command line."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Interrupted(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, which the command-line library would turn into exit code 1."""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Returns:
        0 done, 1 failed, 2 bad usage or input, 3 a ``--require`` was not met, 130 interrupted.
    """
    signal.signal(signal.SIGINT, _interrupt)
    from unhot.cli.app import run  # after the handler: importing takes a moment in which Ctrl-C may come

    try:
        return run(sys.argv[1:] if argv is None else argv)
    except Interrupted:
        sys.stderr.write("\nInterrupted.\n")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted
