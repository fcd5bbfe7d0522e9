from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import torch

from easycompress.training.checkpoint import load_tensors, save_tensors, state_of

if TYPE_CHECKING:
    from pathlib import Path


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {"a.b": torch.randn(3, 4).t(), "count": torch.tensor(5), "empty": torch.empty(0, 2)}
    meta = {"epoch": 3, "best": 97.123456789012345, "rows": [{"loss": 0.1}], "none": None}
    save_tensors(tmp_path / "file", tensors, meta)
    loaded = load_tensors(tmp_path / "file")
    assert loaded is not None
    assert nets.same_state(loaded[0], tensors)
    assert loaded[1] == meta
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_missing_or_broken_reads_as_nothing(tmp_path: Path) -> None:
    assert load_tensors(tmp_path / "none") is None
    (tmp_path / "text").write_text("not a checkpoint, although it is long enough to hold a header")
    assert load_tensors(tmp_path / "text") is None


def test_a_state_is_a_copy() -> None:
    model = nets.make(nets.Mlp)
    state = state_of(model)
    with torch.no_grad():
        model.get_parameter("output.bias").add_(1)
    assert not torch.equal(state["output.bias"], model.get_parameter("output.bias"))
    assert not any(value.requires_grad for value in state.values())
