"""GitHub's workflow commands: what failed stands on the run's page, and beside the pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.regression.outcome import Outcome

TITLE = "easycompress check"


def on_github(environment: Mapping[str, str]) -> bool:
    """Tell whether this is a job of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def error_lines(outcome: Outcome) -> list[str]:
    """Return a line for each check that failed."""
    return [error_line(check.name, check.reason) for check in outcome.failures]


def error_line(name: str, text: str) -> str:
    """Return the command that shows an error, escaped as GitHub's runner reads it back."""
    title = _escaped(f"{TITLE}: {name}").replace(":", "%3A").replace(",", "%2C")
    return f"::error title={title}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
