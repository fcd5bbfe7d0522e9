"""How long work tells whoever watches. Algorithms call it; a face (terminal, page) implements it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. Every method returns at once and never raises."""

    def say(self, text: str) -> None:
        """Tell a finished fact that stays on the screen."""

    def now(self, text: str) -> None:
        """Tell what is being tried; replaced by the next call."""


class Silent:
    """A listener that ignores everything."""

    def say(self, text: str) -> None:
        """Ignore."""

    def now(self, text: str) -> None:
        """Ignore."""
