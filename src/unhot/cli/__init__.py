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
    pressed: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        raise Interrupted

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        from unhot.cli.app import run  # after the handler: importing takes a moment in which Ctrl-C may come

        code = run(sys.argv[1:] if argv is None else argv)
    except BaseException:
        if not pressed:
            raise
        code = 130
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if pressed and code != 0:  # whatever a library made of the interrupt on its way
        sys.stderr.write("\nInterrupted.\n")
        return 130
    return code
