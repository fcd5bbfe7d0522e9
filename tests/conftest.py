"""What every test shares: one thread, small nets, small data."""

from __future__ import annotations

import os

import hypothesis
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # read when its library is imported; tests that start processes hand it on

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")  # the same examples everywhere, however slow the machine


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # small tensors are slower on two


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
