"""What every test shares: one thread, small nets, small data."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import onnxruntime before easycompress, which says so too
os.environ["HF_HUB_OFFLINE"] = "1"  # read when its library is imported; tests that start processes hand it on

import hypothesis
import pytest
import torch

from easycompress.artifact.onnx_export import export
from easycompress.measure import latency, others

if TYPE_CHECKING:
    from collections.abc import Iterator

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")  # the same examples everywhere, however slow the machine


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # small tensors are slower on two


@pytest.fixture(autouse=True, scope="session")
def _libraries_stay() -> None:
    """Let the garbage collector pass over what libraries hold for good: each pass over it takes 0.3 s."""
    export(torch.nn.Linear(1, 1), torch.ones(2, 1))  # imports most of them
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Quiet(others.Others):
    """A machine on which nothing else runs: what the tests' own neighbours do must not change what is said."""

    def taken(self, threads: int) -> float | None:
        """Return that nothing was taken."""
        return 0.0 if super().taken(threads) is not None else None


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "Others", Quiet)
        yield
