from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.container import read_ecz
from easycompress.artifact.exports import Exports
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import check_float_file, unpacked, write_model
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.lc.settings import EntropyQuantization
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.measure.runtime import Runtime
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.technique import Applied


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.onnx"
    assert write_model(nets.make(nets.Mlp), nets.images(2), path) == path
    assert path.read_bytes() == slim(export(nets.make(nets.Mlp), nets.images(2))).SerializeToString(deterministic=True)
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
    reason = r"model\.onnx: can't be written \(No space left on device\); free space there, or choose another"
    with pytest.raises(BadInput, match=reason):
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
    answers = Runtime(tmp_path / "model.onnx", 1).run(inputs)
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


def quantized(net: type[nn.Module], **settings: object) -> Applied:
    work = nets.task(nets.make(net))
    action = EntropyQuantization.model_validate({"strength": 0.3} | settings)
    return EntropyQuantizer().apply(copy.deepcopy(work.model), action, nets.context(work))


@pytest.mark.parametrize("biases", ["float", "8-bit"])
@pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
def test_codes_and_the_packed_file_are_one_model(net: type[nn.Module], biases: str, tmp_path: Path) -> None:
    applied, path = quantized(net, biases=biases), tmp_path / "model.onnx"
    before = nets.state(applied.model)
    counted = write_model(applied.model, nets.images(2), path, codes=applied.codes, packed=True)
    assert counted == tmp_path / "model.ecz"
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "model.ecz"}
    skeleton, codes = read_ecz(counted)
    assert unpacked(skeleton, codes).SerializeToString(deterministic=True) == path.read_bytes()
    onnx.checker.check_model(str(path), full_check=True)
    dense = slim(export(applied.model, nets.images(2))).ByteSize()
    assert counted.stat().st_size < path.stat().st_size < dense
    inputs = nets.images(50)
    with torch.no_grad():
        answers = applied.model(inputs).numpy()
    assert np.abs(Runtime(path, 1).run(inputs) - answers).max() < 5e-3 * np.abs(answers).max()
    assert nets.same_state(applied.model.state_dict(), before)


@pytest.mark.parametrize("biases", ["float", "8-bit"])
def test_batch_norm_is_folded_into_scaled_codes(biases: str, tmp_path: Path) -> None:
    applied = quantized(nets.BatchNormed, biases=biases)
    counted = write_model(applied.model, nets.images(2), tmp_path / "m.onnx", codes=applied.codes, packed=True)
    _, codes = read_ecz(counted)
    forms = {name: code.form for name, code in codes.items()}
    folded = ["features.0.weight", "features.4.weight", "hidden.weight"]
    assert forms == dict.fromkeys(folded, "scaled") | {"output.weight": "codebook"} | (
        {"output.bias": "affine-int8"} if biases == "8-bit" else {}
    )
    norm = applied.model.features[1]
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    expected = applied.codes["features.0.weight"].dense() * scale.detach()[:, None, None, None]
    assert torch.allclose(codes["features.0.weight"].dense(), expected, rtol=2**-10, atol=0)
    operators = {node.op_type for node in onnx.load(str(tmp_path / "m.onnx")).graph.node}
    assert "BatchNormalization" not in operators


def test_the_order_of_codes_is_of_no_matter(tmp_path: Path) -> None:
    applied = quantized(nets.LeNet)
    files = []
    for index, names in enumerate((sorted(applied.codes), sorted(applied.codes, reverse=True))):
        codes = {name: applied.codes[name] for name in names}
        counted = write_model(applied.model, nets.images(2), tmp_path / f"{index}.onnx", codes=codes, packed=True)
        files.append((counted.read_bytes(), (tmp_path / f"{index}.onnx").read_bytes()))
    assert files[0] == files[1]


def test_remembered_exports_change_no_byte(tmp_path: Path) -> None:
    exports = Exports()
    for strength in (0.2, 0.5, 0.5):
        applied = quantized(nets.BatchNormed, strength=strength)
        for name, known in (("known.onnx", exports), ("fresh.onnx", None)):
            write_model(
                applied.model, nets.images(2), tmp_path / name, codes=applied.codes, packed=True, exports=known
            )  # fmt: skip
        for suffix in (".onnx", ".ecz"):
            assert (tmp_path / f"known{suffix}").read_bytes() == (tmp_path / f"fresh{suffix}").read_bytes()


def test_without_codes_the_packed_file_holds_the_same_graph(tmp_path: Path) -> None:
    counted = write_model(nets.make(nets.LeNet), nets.images(2), tmp_path / "m.onnx", packed=True)
    skeleton, codes = read_ecz(counted)
    assert codes == {}
    assert unpacked(skeleton, codes).SerializeToString(deterministic=True) == (tmp_path / "m.onnx").read_bytes()
    assert counted.stat().st_size < (tmp_path / "m.onnx").stat().st_size


def test_where_passes_rewrite_the_graph_they_decide_how_weights_are_stored(tmp_path: Path) -> None:
    work = nets.task(nets.make(nets.LeNet))
    applied = StaticQuantizer().apply(copy.deepcopy(work.model), StaticInt8(), nets.context(work))
    assert applied.file_pass is not None
    files = []
    for index, codes in enumerate((None, applied.codes)):
        path = tmp_path / f"{index}.onnx"
        counted = write_model(applied.model, nets.images(2), path, [applied.file_pass], codes, packed=True)
        files.append(path.read_bytes())
        skeleton, stored = read_ecz(counted)
        assert stored == {}
        assert unpacked(skeleton, stored).SerializeToString(deterministic=True) == path.read_bytes()
    assert files[0] == files[1]
