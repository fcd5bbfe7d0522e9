"""A sample of technique x architecture: it works, or is refused in one line. The whole: benchmarks.architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from architectures import nets
from architectures.cells import STRENGTH, action_of, bench, cell, plan_of
from torch import nn

from easycompress.artifact.write import write_model
from easycompress.codes.codebook import Codebook
from easycompress.core.errors import CannotCompress
from easycompress.intake.computed import plain_weights
from easycompress.intake.task import copied
from easycompress.lc.tasks import weights_of
from easycompress.measure import latency
from easycompress.measure.runtime import Runtime
from easycompress.pruning.unstructured.saliency import obd

if TYPE_CHECKING:
    from pathlib import Path

WORKS = [
    ("lstm", "entropy-quantization"),
    ("deep-gru", "lc"),
    ("bidirectional-lstm", "unstructured-pruning"),
    ("rnn", "dynamic-int8"),
    ("gan-generator", "entropy-quantization"),
    ("gan-generator", "structured-pruning"),
    ("u-net", "structured-pruning"),
    ("conv1d", "qat-int8"),
    ("tied-embedding", "weight-only"),
    ("shared-linear", "structured-pruning"),
    ("two-inputs", "static-int8"),
    ("keyword-inputs", "lc"),
    ("tuple-of-outputs", "float16"),
    ("old-weight-norm", "structured-pruning"),
    ("old-spectral-norm", "entropy-quantization"),
    ("functional", "float16"),
    ("partly-functional", "static-int8"),
    ("depthwise", "low-rank-layers"),
    ("conv3d", "unstructured-pruning"),
    ("norms", "static-int8"),
    ("nested", "entropy-quantization"),
]
REFUSED = [
    ("channel-shuffle", "structured-pruning", "can't be followed through aten::view"),
    ("gru-cell", "qat-int8", "the runtime quantizes inside operator ConstantOfShape, which training can't imitate"),
    ("gan-generator", "low-rank-layers", "low-rank layers: no layer becomes cheaper"),
    ("u-net", "dynamic-int8", "the model has no linear layer"),
    ("lstm", "structured-pruning", "strategy global: they can't be followed through LSTM"),
    ("tied-embedding", "structured-pruning", "with strategy global: embedding, output read the same weight"),
    ("u-net", "transformer-pruning", "the model has no attention"),
    ("functional", "lc", "the model has no convolution and no linear or recurrent layer"),
    ("data-flow-if", "float16", "operator aten._local_scalar_dense"),
]


@pytest.mark.parametrize(("architecture", "technique"), WORKS)
def test_it_works(architecture: str, technique: str, tmp_path: Path) -> None:
    made = cell(architecture, technique, tmp_path)
    assert (made.state, made.reason) == ("works", "")
    assert made.ratio > 1


@pytest.mark.parametrize(("architecture", "technique", "reason"), REFUSED)
def test_it_is_refused_in_one_line(architecture: str, technique: str, reason: str, tmp_path: Path) -> None:
    made = cell(architecture, technique, tmp_path)
    assert made.state == "refused", made.reason
    assert reason in made.reason
    assert "\n" not in made.reason
    assert len(made.reason) < 300


def test_most_of_a_recurrent_layers_weights_are_coded(tmp_path: Path) -> None:
    made = cell("lstm", "lc", tmp_path)
    assert made.state == "works"
    assert made.ratio > 4  # with its matrices left as floats it would be 1.2


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.GRU, {"bidirectional": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
        (nn.GRU, {"bias": False}),
    ],
)
def test_the_file_stacks_the_gates_of_coded_weights_as_the_module_does(
    kind: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = kind(5, 6, batch_first=True, **options)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)[0].mean(1)

    torch.manual_seed(0)
    model = Net().eval()
    codes = {}
    for number, name in enumerate(weights_of(model)):
        weight = model.get_parameter(name)
        entries = torch.randn(4) + 0.1 * number
        codes[name] = Codebook(torch.randint(4, weight.shape).to(torch.uint8), entries)
        with torch.no_grad():
            weight.copy_(codes[name].dense())
    assert len(codes) == 2 * options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    inputs = torch.randn(5, 4, 5)
    path = write_model(model, inputs[:2], tmp_path / "net.onnx", codes=codes)
    floats = [t for t in onnx.load(str(path)).graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(len(t.dims) != 3 for t in floats)  # no stacked matrix is left
    with torch.no_grad():
        assert np.allclose(Runtime(path, 1).run(inputs), model(inputs).numpy(), atol=1e-5)


def test_a_code_of_one_direction_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    model = nets.KINDS["bidirectional-lstm"].make()
    name = "body.weight_hh_l0_reverse"
    weight = model.get_parameter(name)
    code = Codebook(torch.randint(2, weight.shape).to(torch.uint8), torch.tensor([-0.2, 0.2]))
    with torch.no_grad():
        weight.copy_(code.dense())
    inputs = nets.words(5, 0)
    path = write_model(model, inputs[:2], tmp_path / "net.onnx", codes={name: code})
    with torch.no_grad():
        assert np.allclose(Runtime(path, 1).run(inputs), model(inputs).numpy(), atol=1e-5)


def test_the_curvature_of_recurrent_weights_is_seen() -> None:
    work = bench("lstm")
    name = "body.weight_hh_l0"
    found = obd(work.task.model, {name: work.task.model.get_parameter(name)}, work.task.data.train.take(slice(4)),
                work.task.loss)  # fmt: skip
    assert float(found[name].max()) > 0


@pytest.mark.parametrize("name", ["weight-norm", "old-weight-norm", "spectral-norm", "old-spectral-norm"])
def test_computed_weights_become_plain_ones(name: str) -> None:
    kind = nets.KINDS[name]
    original = kind.make()
    with torch.no_grad():
        expected = original(kind.draw(4, 0))
    before = sorted(original.state_dict())
    model = copied(original)
    assert plain_weights(model) == ["stem.weight", "hidden.weight"]
    assert {"stem.weight", "hidden.weight"} <= dict(model.named_parameters()).keys()
    with torch.no_grad():
        assert torch.allclose(model(kind.draw(4, 0)), expected, atol=1e-6)
    assert sorted(original.state_dict()) == before
    assert plain_weights(model) == []


@pytest.mark.parametrize(
    ("name", "objective", "kinds"),
    [
        ("lstm", "size", {"entropy-quantization", "lc"}),
        ("u-net", "compute", {"structured-pruning", "low-rank-layers"}),
        ("old-weight-norm", "size", {"static-int8", "qat-int8", "structured-pruning", "entropy-quantization"}),
    ],
)
def test_the_plan_takes_what_fits(name: str, objective: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)
    made = plan_of(name, objective)
    assert kinds & {step.kind for step in (*made.quick, *made.steps)}


def test_the_plan_refuses_an_lstm_the_fewer_operations_it_can_not_have() -> None:
    with pytest.raises(CannotCompress, match="no layer but its output can be pruned"):
        plan_of("lstm", "compute")


def test_strength_is_a_middle_one() -> None:
    assert action_of("lc", nets.KINDS["lstm"]).model_dump()["strength"] == STRENGTH
