"""What a comparison came to: one check a row, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = "easycompress-check/1"


@dataclass(frozen=True)
class Check:
    """One thing that was compared. `passed` None: it wasn't judged, and `reason` says why.

    `measured` and `allowed` are for people, with units; `reason` is one sentence.
    """

    name: str
    passed: bool | None
    measured: str
    allowed: str
    reason: str


def fine(name: str, measured: str, allowed: str, reason: str) -> Check:
    """Return a check that was passed."""
    return Check(name, passed=True, measured=measured, allowed=allowed, reason=reason)


def worse(name: str, measured: str, allowed: str, reason: str) -> Check:
    """Return a check that failed."""
    return Check(name, passed=False, measured=measured, allowed=allowed, reason=reason)


def unjudged(name: str, reason: str, allowed: str = "left out") -> Check:
    """Return a check that wasn't judged."""
    return Check(name, passed=None, measured="-", allowed=allowed, reason=reason)


@dataclass(frozen=True)
class Outcome:
    """All checks of one comparison, in order. `notes` are what a reader must know beside them."""

    candidate: str
    baseline: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing got worse than allowed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """Return the checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def exit_code(self) -> int:
        """Return 0, or 1 for a regression."""
        return 0 if self.passed else 1

    @property
    def verdict(self) -> str:
        """Return one sentence for people."""
        if self.passed:
            unjudged = [check.name for check in self.checks if check.passed is None]
            rest = f" (not judged: {', '.join(unjudged)})" if unjudged else ""
            return f"FINE: {self.candidate} is within the limits of {self.baseline}{rest}"
        failures = "; ".join(f"{check.name}: {check.reason}" for check in self.failures)
        return f"REGRESSION: {failures}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "verdict": "fine" if self.passed else "regression",
            "candidate": self.candidate,
            "baseline": self.baseline,
            "checks": [vars(check) for check in self.checks],
            "notes": list(self.notes),
        }
