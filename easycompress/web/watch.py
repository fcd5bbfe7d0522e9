"""What a run tells, written down as lines that the page reads."""

from __future__ import annotations

import contextlib
import math
import re
import time
from typing import TYPE_CHECKING, Any

from easycompress.web.store import append

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.progress import Event

PAUSE = 0.3
"""Seconds between two lines of what is being tried, where they belong to the same phase."""


class Journalist:
    """A listener (core.progress.Watcher) that adds every event to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last, self._phase = 0.0, ""

    def say(self, text: str) -> None:
        """Write a finished fact."""
        self._write("say", text=text)

    def now(self, text: str) -> None:
        """Write what is being tried; of quick changes within a phase only some."""
        moment, phase = time.monotonic(), text.partition(":")[0]
        if phase == self._phase and moment - self._last < PAUSE:
            return
        self._last, self._phase = moment, phase
        self._write("now", text=text)

    def event(self, event: Event) -> None:
        """Write an event under the name of its type: epoch-done, attempt-begun, attempt-done, time-left."""
        kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(event).__name__).lower()
        self._write(kind, **{name: finite(value) for name, value in event.model_dump(mode="json").items()})

    def _write(self, kind: str, **values: Any) -> None:  # noqa: ANN401 - any JSON values
        with contextlib.suppress(OSError, ValueError):  # a full disk stops the run by itself, where it matters
            append(self._path, kind, **values)


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value as JSON can hold it: what is not a finite number becomes None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
