"""The commands on packed files: what they hold, and the ONNX file that they become."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from easycompress.artifact.container import write_ecz
from easycompress.codes.codebook import Codebook

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ran, Run

ROWS, COLUMNS = 96, 64

STOCK = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("m.onnx")
np.save("y.npy", session.run(None, {"x": np.load("x.npy")})[0])
assert not any(name.partition(".")[0] in ("easycompress", "torch", "onnx") for name in sys.modules)
"""


def code() -> Codebook:
    generator = torch.Generator().manual_seed(0)
    entries = torch.tensor([-0.5, -0.25, 0.25, 0.75])
    return Codebook(torch.randint(4, (ROWS, COLUMNS), generator=generator, dtype=torch.uint8), entries)


def graph(op: str = "MatMul") -> onnx.ModelProto:
    """y = op(x, weight) + bias."""
    bias = numpy_helper.from_array(np.linspace(-1, 1, COLUMNS, dtype=np.float32), "bias")
    weight = numpy_helper.from_array(code().dense().numpy(), "weight")
    proto = helper.make_graph(
        [helper.make_node(op, ["x", "weight"], ["h"]), helper.make_node("Add", ["h", "bias"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", ROWS))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", COLUMNS))],
        [weight, bias],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.ecz, which is the working folder."""
    write_ecz(tmp_path / "model.ecz", graph(), {"weight": code()})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(ran: Ran, code: int = 2) -> str:
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("easycompress: ")
    assert ran.err.count("\n") == 1
    return ran.err.removeprefix("easycompress: ").rstrip("\n")


# ---------------------------------------------------------------- unpack


def test_unpack_writes_a_file_that_computes_the_same(packed: Path, run: Run) -> None:
    ran = run("unpack", "model.ecz", "-o", "m.onnx")
    assert (ran.code, ran.err) == (0, "")
    sizes = [f"{(packed / name).stat().st_size:,}".replace(",", " ") for name in ("model.ecz", "m.onnx")]
    assert ran.out == f"model.ecz: {sizes[0]} bytes -> m.onnx: {sizes[1]} bytes\n"
    assert (packed / "m.onnx").stat().st_size < ROWS * COLUMNS * 4 / 8, "the file decodes itself"
    x = np.random.default_rng(0).normal(size=(5, ROWS)).astype(np.float32)
    np.save(packed / "x.npy", x)
    subprocess.run([sys.executable, "-I", "-c", STOCK], check=True, cwd=packed)
    expected = x @ code().dense().numpy() + np.linspace(-1, 1, COLUMNS, dtype=np.float32)
    np.testing.assert_allclose(np.load(packed / "y.npy"), expected, rtol=1e-4, atol=1e-4)


def test_unpack_overwrites(packed: Path, run: Run) -> None:
    (packed / "m.onnx").write_text("something else")
    assert run("unpack", "model.ecz", "-o", "m.onnx").code == 0
    onnxruntime.InferenceSession(packed / "m.onnx")


def test_unpack_makes_the_folder(packed: Path, run: Run) -> None:
    assert run("unpack", "model.ecz", "--out", "new/m.onnx").code == 0
    onnx.checker.check_model(str(packed / "new" / "m.onnx"))


def test_unpack_needs_a_name_of_its_own(packed: Path, run: Run) -> None:
    before = (packed / "model.ecz").read_bytes()
    text = refusal(run("unpack", "model.ecz", "-o", "./model.ecz"))
    assert text == "-o ./model.ecz: is the packed file itself; give the ONNX file another name"
    assert (packed / "model.ecz").read_bytes() == before
    assert "Missing option '-o'" in refusal(run("unpack", "model.ecz"))


@pytest.mark.parametrize("command", ["unpack", "inspect"])
def test_what_is_no_packed_file(packed: Path, run: Run, command: str) -> None:
    more = ("-o", "m.onnx") if command == "unpack" else ()
    assert refusal(run(command, "none.ecz", *more)) == "none.ecz: can't be read (No such file or directory)"
    (packed / "a.ecz").write_bytes(graph().SerializeToString())
    assert refusal(run(command, "a.ecz", *more)).startswith("a.ecz: damaged or not an .ecz file")
    assert not (packed / "m.onnx").exists()


@pytest.mark.parametrize("command", ["unpack", "inspect"])
@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.98])
def test_a_flipped_bit_and_a_cut_end_are_refused(packed: Path, run: Run, command: str, where: float) -> None:
    whole = (packed / "model.ecz").read_bytes()
    more = ("-o", "m.onnx") if command == "unpack" else ()
    place = int(where * len(whole))
    flipped = bytearray(whole)
    flipped[place] ^= 4
    for content in (bytes(flipped), whole[:place]):
        (packed / "model.ecz").write_bytes(content)
        assert refusal(run(command, "model.ecz", *more)).startswith("model.ecz: ")
        assert not (packed / "m.onnx").exists()


def test_a_whole_file_around_a_graph_that_is_none_is_refused(packed: Path, run: Run) -> None:
    write_ecz(packed / "model.ecz", graph("NoSuchOperator"), {"weight": code()})
    text = refusal(run("unpack", "model.ecz", "-o", "m.onnx"))
    assert text.startswith("model.ecz: holds no valid ONNX graph (")
    assert text.endswith("; compress the model anew")


# ---------------------------------------------------------------- inspect


def test_inspect_of_a_packed_file(packed: Path, run: Run) -> None:
    ran = run("inspect", "model.ecz")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[2].startswith("weight  codebook of 4 ")
    assert float(lines[2].split("96x64")[1].split()[0]) == pytest.approx(2, abs=0.1)
    size = (packed / "model.ecz").stat().st_size
    shown = json.loads(run("inspect", "model.ecz", "--json").out)
    stored = sum(row["bytes"] for row in shown["tensors"])
    overhead = size - stored
    assert (shown["file_bytes"], shown["overhead_bytes"]) == (size, overhead)
    assert {row["name"] for row in shown["tensors"]} == {"weight", "bias"}
    assert 0 < overhead < 400
    share = f"{100 * overhead / size:.1f} %"
    spaced = f"{size:,}".replace(",", " ")
    assert lines[-1] == f"file {spaced} bytes, overhead {overhead} bytes ({share}): graph and header"


@pytest.mark.usefixtures("packed")
def test_both_files_have_the_same_tensors(run: Run) -> None:
    assert run("unpack", "model.ecz", "-o", "m.onnx").code == 0
    both = [json.loads(run("inspect", name, "--json").out) for name in ("model.ecz", "m.onnx")]
    shapes = [{tuple(row["shape"]) for row in content["tensors"]} for content in both]
    assert (ROWS, COLUMNS) in shapes[0] & shapes[1]
    assert all(0 < content["overhead_bytes"] < content["file_bytes"] for content in both)
