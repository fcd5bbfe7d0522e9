from __future__ import annotations

import os
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.write import check_float_file, write_model
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.measure.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    proto = write_model(nets.make(nets.Mlp), nets.images(2), path)
    assert path.read_bytes() == proto.SerializeToString()
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)


def test_passes_run_in_order_before_slimming(tmp_path: Path) -> None:
    seen: list[str] = []

    def first(proto: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(f"first {len(proto.graph.value_info) > 0}")
        return proto

    def second(proto: onnx.ModelProto) -> onnx.ModelProto:
        seen.append("second")
        return proto

    write_model(nets.make(nets.Mlp), nets.images(2), tmp_path / "model.onnx", [first, second])
    assert seen == ["first True", "second"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def broken(_proto: onnx.ModelProto) -> onnx.ModelProto:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        write_model(nets.make(nets.Mlp), nets.images(2), path, [broken])

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"model\.onnx: can't be written \(No space left on device\); choose another"):
        write_model(nets.make(nets.Mlp), nets.images(2), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_invalid_graph_is_not_written(tmp_path: Path) -> None:
    def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
        proto.graph.node[0].op_type = "NoSuchOperator"
        return proto

    with pytest.raises(Exception, match="NoSuchOperator"):
        write_model(nets.make(nets.Mlp), nets.images(2), tmp_path / "model.onnx", [broken])
    assert not any(tmp_path.iterdir())


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + torch.rand(8)


class Frozen(nn.Module):
    """What it saw first stays in the exported graph as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x) * self.calls


@pytest.mark.parametrize("net", [Random, Frozen])
def test_a_file_that_answers_otherwise_is_refused(net: type[nn.Module], tmp_path: Path) -> None:
    model, inputs = net().eval(), torch.randn(2, 8)
    write_model(model, inputs, tmp_path / "model.onnx")
    answers = Runtime(tmp_path / "model.onnx", 1).run(inputs.numpy())
    model(inputs)
    with pytest.raises(
        CannotCompress, match=r"^the exported file doesn't answer as the model does \(off by .*freezes$"
    ):
        check_float_file(model, inputs, answers)


def test_a_faithful_file_passes() -> None:
    model, inputs = nets.make(nets.LeNet), nets.images(4)
    with torch.no_grad():
        answers = model(inputs).numpy()
    check_float_file(model, inputs, answers)
    check_float_file(model, inputs, answers + 1e-5)
    with pytest.raises(CannotCompress, match=r"off by 0\.1"):
        check_float_file(model, inputs, answers + 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(value: float) -> None:
    model, inputs = nets.make(nets.LeNet), nets.images(4)
    with torch.no_grad():
        answers = model(inputs).numpy().copy()
    answers[0, 0] = value
    with pytest.raises(CannotCompress, match="doesn't answer as the model does"):
        check_float_file(model, inputs, answers)


@pytest.mark.parametrize("shape", [(3, 10), (4, 7), (40,), (1, 10)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model, inputs = nets.make(nets.LeNet), nets.images(4)
    with pytest.raises(CannotCompress, match=r"answers in shape .*, the model in \(4, 10\)"):
        check_float_file(model, inputs, np.zeros(shape, dtype=np.float32))
