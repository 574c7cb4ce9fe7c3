"""Ctrl-C, or SIGTERM, ends a training after the step that is being computed, with a checkpoint."""

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The stop was asked for by SIGTERM, as service managers and batch systems do, not by Ctrl-C."""


class Interrupt:
    """A context in which the first SIGINT or SIGTERM sets ``requested`` and a second one raises at once.

    In a thread other than the main one, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self._error: type[KeyboardInterrupt] | None = None
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    @property
    def requested(self) -> bool:
        """Whether a signal asked for a stop."""
        return self._error is not None

    def raise_if_requested(self) -> None:
        """Raise :class:`Terminated` after SIGTERM, KeyboardInterrupt after SIGINT."""
        if self._error is not None:
            raise self._error()

    def __enter__(self) -> "Interrupt":
        if self._in_main_thread:
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._in_main_thread:
            for number, handler in self._before.items():
                # a handler that was not set from Python reads as None and cannot be put back
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.requested
        self._error = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if repeated:
            self.raise_if_requested()
