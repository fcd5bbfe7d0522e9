"""One small exploration that all tests here share: a few points of the tiny task, one epoch each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from explored import FEW, Explored
from tiny import tiny

from easycompress import explore
from easycompress.executor.workshop import Workshop
from easycompress.exploration import plan

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def few() -> Iterator[None]:
    """Let there be few curves and no pictures: those of made-up points are looked at in test_draw."""
    patch = pytest.MonkeyPatch()
    patch.setattr(plan, "CURVES", FEW)
    for name in ("draw_all", "draw_figures", "render"):
        patch.setattr(f"easycompress.exploration.outputs.{name}", lambda *_: "")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def explored(few: None, tmp_path_factory: pytest.TempPathFactory) -> Explored:  # noqa: ARG001 - for its effect
    task = tiny()
    splits = {name: task.splits[name] for name in ("train", "validation", "test")}
    flags: dict[str, Any] = splits | {"epochs": 1, "max_drop": "5%", "out": tmp_path_factory.mktemp("tiny") / "out"}
    return Explored(task, flags, explore(task.model(), **flags))


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to train or to write a candidate fail the test."""

    def refuse(*_: object) -> None:
        pytest.fail("a point was measured again")

    monkeypatch.setattr(Workshop, "_attempt", refuse)
