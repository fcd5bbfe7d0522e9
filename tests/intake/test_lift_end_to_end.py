"""A trained network without its source, as .pt2 and as .onnx: compressed, loaded again, trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

import easycompress as ec
from easycompress.artifact.onnx_export import export
from easycompress.artifact.pt2 import write_pt2

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a small CNN that tells which half of an image is bright, and its data."""
    torch.manual_seed(0)
    x = torch.rand(600, 1, 8, 8)
    y = (x[:, :, :4].mean((1, 2, 3)) > x[:, :, 4:].mean((1, 2, 3))).long()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:400]), y[:400]).backward()
        optimizer.step()
    return model.eval(), x, y


STEPS = {
    "structured": {"kind": "structured-pruning", "strength": 0.3, "steps": 1},
    "codes": {"kind": "entropy-quantization"},
}


@pytest.mark.parametrize(("suffix", "steps"), [(".pt2", "structured"), (".onnx", "codes")])
def test_it_is_compressed_and_loaded_without_its_source(
    trained: tuple[nn.Module, torch.Tensor, torch.Tensor], tmp_path: Path, suffix: str, steps: str
) -> None:
    model, x, y = trained
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt2":
        write_pt2(model, x[:2], path)
    else:
        onnx.save(export(model, x[:2]), str(path))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"schema": "easycompress-recipe/1", "steps": [STEPS[steps]]}))
    result = ec.compress(
        path, train=(x[:400], y[:400]), validation=(x[400:500], y[400:500]), test=(x[500:], y[500:]),
        objective="size", target="1.3x", max_drop="30%", budget="4ep", recipe=str(recipe), also="pt2",
        out=tmp_path / "out",
    )  # fmt: skip
    assert result.report.verdict == "met"
    assert result.exit_code == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    answers = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x[500:].numpy()})[0])
    torch.testing.assert_close(answers, result.model(x[500:]), atol=1e-4, rtol=1e-4)
    right = 100 * float((answers.argmax(1) == y[500:]).double().mean())
    assert right == pytest.approx(result.report.final.quality)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    torch.testing.assert_close(program(x[500:507]), answers[:7], atol=1e-4, rtol=1e-4)
    again = ec.load(tmp_path / "out")
    torch.testing.assert_close(again(x[:5]), result.model(x[:5]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ec.load(tmp_path / "out", path)(x[:5]), result.model(x[:5]))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in again.modules()) == (suffix == ".pt2")
    convolutions = [module for module in again.modules() if isinstance(module, nn.Conv2d)]
    assert (convolutions[0].out_channels < 16) == (steps == "structured")
    again.train()
    nn.functional.cross_entropy(again(x[:50]), y[:50]).backward()
    assert all(p.grad is not None for p in again.parameters())
