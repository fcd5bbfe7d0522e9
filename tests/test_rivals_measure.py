"""A rival's file is fed and timed whatever its exporter calls its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks.rivals_measure import answers, with_our_names

if TYPE_CHECKING:
    from pathlib import Path

OURS = ["first", "second"]


class Difference(nn.Module):
    """Whose inputs can't be taken for one another."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return 2 * first - second


def export(path: Path, names: list[str]) -> Path:
    example = (torch.zeros(2, 3), torch.zeros(2, 3))
    torch.onnx.export(
        Difference(),
        example,
        str(path),
        input_names=names,
        dynamo=False,
        dynamic_axes={names[0]: {0: "n"}, names[1]: {0: "n"}},
    )
    return path


def test_a_file_with_our_names_is_taken_as_it_is(tmp_path: Path) -> None:
    path = export(tmp_path / "model.onnx", OURS)
    assert with_our_names(path, OURS) == path


def test_renamed_inputs_get_our_names_in_their_order(tmp_path: Path) -> None:
    path = export(tmp_path / "model.onnx", ["values_0", "values_1"])
    renamed = with_our_names(path, OURS)
    assert [value.name for value in onnx.load(renamed).graph.input] == OURS
    assert [value.name for value in onnx.load(path).graph.input] == ["values_0", "values_1"]
    given = {"first": np.ones((4, 3), np.float32), "second": np.full((4, 3), 5, np.float32)}
    for file in (path, renamed):
        assert np.array_equal(answers(file, given), np.full((4, 3), -3, np.float32))
