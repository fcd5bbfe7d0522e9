"""A fixture for the tests of a project that ships a compressed model. pytest finds it by the entry point `pytest11`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.regression.outcome import Outcome


@pytest.fixture(scope="session")
def easycompress_check() -> Callable[..., Outcome]:
    """Return a function that takes what `easycompress.check` takes, and fails the test where something got worse."""

    def held(candidate: Any, **keywords: Any) -> Outcome:  # noqa: ANN401 - as check()
        from easycompress.regression.run import check  # noqa: PLC0415 - imports torch, which other tests don't need

        outcome = check(candidate, **keywords)
        if not outcome.passed:
            reasons = [f"{failure.name}: {failure.reason}" for failure in outcome.failures]
            pytest.fail("\n".join(reasons), pytrace=False)
        return outcome

    return held
