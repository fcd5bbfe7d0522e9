"""Ctrl-C in the process of the command line: it is remembered, so that no library's `except` can lose it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_asked: list[int] = []


def listen() -> None:
    """Remember Ctrl-C from now on, beside raising KeyboardInterrupt; where it is ignored leave it so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _ask)


def ignore() -> None:
    """Ignore Ctrl-C from now on, where it was listened for: what is left is to tell how it ended."""
    if signal.getsignal(signal.SIGINT) is _ask:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def asked() -> bool:
    """Tell whether Ctrl-C was pressed."""
    return bool(_asked)


def check() -> None:
    """Raise KeyboardInterrupt where Ctrl-C was pressed and something went on all the same."""
    if _asked:
        raise KeyboardInterrupt


def _ask(number: int, _frame: FrameType | None) -> None:
    _asked.append(number)
    raise KeyboardInterrupt
