"""The command line."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType

AGAIN_SECONDS = 1.0  # after which a second Ctrl-C is not the same one, pressed twice


class Interrupted(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, which the command-line library would turn into exit code 1."""


class _Interrupts:
    """What Ctrl-C does: it is raised once, so that what is being undone is undone, however often it is pressed.

    It is raised again if the first came to nothing: Python drops what is raised in a callback (a destructor, or one
    that C code calls), and a library may catch what it does not know. Then it is pressed again a second later.
    """

    def __init__(self) -> None:
        self.pressed, self._raised_at, self._over = False, 0.0, False
        self._before = signal.signal(signal.SIGINT, self._press)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped

    def _press(self, number: int, frame: FrameType | None) -> None:
        fresh = not self.pressed or time.monotonic() - self._raised_at > AGAIN_SECONDS
        self.pressed = True
        if fresh and not self._over:
            self._raised_at = time.monotonic()
            raise Interrupted

    def _dropped(self, what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, Interrupted):
            self._hook(what)
            return
        self._raised_at = -AGAIN_SECONDS
        threading.Timer(0.05, self._press_again).start()  # once the callback has returned

    def _press_again(self) -> None:
        if self._over:
            return
        if hasattr(signal, "pthread_kill"):  # wakes the main thread where it waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def end(self, process_ends: bool) -> None:
        """Raise nothing from here on: give the caller's handlers back, or ignore Ctrl-C while the process ends."""
        self._over = True
        sys.unraisablehook = self._hook
        before = self._before or signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN if process_ends else before)


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The arguments; None for those of this process, which is to end with the exit code.

    Returns:
        0 done, 1 failed, 2 bad usage or input, 3 a ``--require`` was not met, 130 interrupted.
    """
    interrupts = _Interrupts()
    try:
        from unhot.cli.app import run  # after the handler: importing takes a moment in which Ctrl-C may come

        code = run(sys.argv[1:] if argv is None else argv, lambda: interrupts.pressed)
    except BaseException:
        if not interrupts.pressed:
            raise
        code = 130
    finally:
        interrupts.end(process_ends=argv is None)
    if interrupts.pressed:  # whatever a library made of it on its way
        sys.stderr.write("\nInterrupted.\n")
        return 130
    return code
