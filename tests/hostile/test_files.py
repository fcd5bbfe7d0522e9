"""Paths that lead elsewhere, sizes that aren't there, bombs, texts and pages that are more than they seem."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from artifact.test_container import CODEBOOK, sealed, skeleton_bytes, small
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from easycompress.artifact.container import read_ecz, write_ecz
from easycompress.artifact.external import write_graph
from easycompress.artifact.inspection import inspect_onnx
from easycompress.artifact.rows import TensorRow
from easycompress.artifact.session import constants_apart
from easycompress.artifact.stream import varint
from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.files import read_json
from easycompress.core.opening import RAN, opened
from easycompress.core.plain import MOST_TEXT, read_toml, read_yaml
from easycompress.executor.replay import rebuild
from easycompress.intake import onnx_in
from easycompress.intake.config import make_request
from easycompress.intake.data import load_data
from easycompress.intake.models import load_model
from easycompress.intake.onnx_checks import check_tensors, read_checked
from easycompress.report.terminal import Terminal
from easycompress.selection.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable


def graph(*nodes: onnx.NodeProto, **tensors: Any) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    made = helper.make_graph(
        list(nodes), "g", [value("x", TensorProto.FLOAT, ["n", 4])], [value("y", TensorProto.FLOAT, ["n", "m"])], stored
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def plain() -> onnx.ModelProto:
    return graph(helper.make_node("MatMul", ["x", "w"], ["y"]), w=np.ones((4, 600), np.float32))


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A graph with its weight in a file beside it."""
    return write_graph(plain(), tmp_path / "net" / "m.onnx", lambda _: np.zeros(0), apart=True)


def put(path: Path, **entries: str) -> None:
    """Say where the weight lies."""
    proto = onnx.load(str(path), load_external_data=False)
    tensor = proto.graph.initializer[0]
    held = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in held.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"location": "../../etc/passwd"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "a\\..\\..\\b"}, "outside the model's folder"),
        ({"location": "C:/x"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "m.onnx.data\0x"}, "outside the model's folder"),
        ({"location": "link"}, "behind the symbolic link"),
        ({"location": "folder/deep"}, "behind the symbolic link"),
        ({"location": "none"}, "which isn't there"),
        ({"location": "."}, "outside the model's folder"),
        ({"offset": "1"}, "ends at byte 9601"),
        ({"offset": "9" * 18}, "ends at byte"),
        ({"offset": "-64"}, "no whole number"),
        ({"offset": "9" * 40}, "no whole number"),
        ({"length": "12"}, "says to have 12 bytes, its shape and type need 9600"),
    ],
)
def test_data_that_lie_elsewhere_are_refused(apart: Path, entries: dict[str, str], text: str) -> None:
    (apart.parent / "link").symlink_to("/etc/passwd")
    (apart.parent / "folder").symlink_to("/etc")
    put(apart, **entries)
    for read in (read_checked, inspect_onnx, lambda path: load_model(path, None, Path(), trust_pickle=False)):
        with pytest.raises(BadInput, match=text) as caught:
            read(apart)
        assert "\n" not in str(caught.value)


def test_a_place_that_is_no_text_is_refused(apart: Path) -> None:
    put(apart, location="abcdefgh")
    apart.write_bytes(apart.read_bytes().replace(b"abcdefgh", b"abc\xffdefg"))
    with pytest.raises(BadInput, match="lies in a place that is no text"):
        read_checked(apart)


def test_what_pytorch_can_t_run_is_one_line(tmp_path: Path) -> None:
    nodes = (helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Cast", ["r"], ["h"], to=TensorProto.FLOAT16),
             helper.make_node("MatMul", ["h", "w"], ["p"]),
             helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT))  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(graph(*nodes, w=np.ones((4, 3), np.float16)).SerializeToString())
    with pytest.raises(CannotCompress) as caught:
        load_model(tmp_path / "m.onnx", None, Path(), trust_pickle=False)
    assert "\n" not in str(caught.value)


def test_data_beside_the_graph_are_read(apart: Path) -> None:
    assert check_tensors(onnx.load(str(apart), load_external_data=False), apart) == 9600
    assert inspect_onnx(apart)[0].bytes == 9600


LIES: dict[str, Callable[[TensorProto], Any]] = {
    "holds 9600 bytes, its shape and type need 19200": lambda tensor: tensor.dims.append(2),
    "holds 9600 bytes, its shape and type need 2516582400": lambda tensor: tensor.dims.__setitem__(0, 2**20),
    "impossible shape": lambda tensor: tensor.dims.extend([2**62, 2**62]),
    "unknown type": lambda tensor: setattr(tensor, "data_type", 99),
    "holds 0 numbers": lambda tensor: tensor.ClearField("raw_data"),
}


@pytest.mark.parametrize("text", LIES)
def test_tensors_that_lie_about_their_size_are_refused(tmp_path: Path, text: str) -> None:
    proto = plain()
    LIES[text](proto.graph.initializer[0])
    body = helper.make_graph(proto.graph.node, "b", [], [], proto.graph.initializer)  # and inside a body
    inside = graph(helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))
    for made in (proto, inside):
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(BadInput, match=text):
            read_checked(tmp_path / "m.onnx")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    data = plain().SerializeToString().replace(b"MatMul", b"\xff\xfeMul!")
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BadInput, match=r"a name that is no text|not a readable ONNX file"):
        read_checked(tmp_path / "m.onnx")


BOMB = helper.make_node("ConstantOfShape", ["s"], ["c"])


def test_a_constant_of_a_terabyte_is_refused_in_the_child(tmp_path: Path) -> None:
    summed = helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0)
    huge = graph(BOMB, summed, helper.make_node("Mul", ["x", "r"], ["y"]), s=np.array([2**20, 2**20]))
    (tmp_path / "m.onnx").write_bytes(huge.SerializeToString())
    with pytest.raises((BadInput, CannotCompress)) as caught:
        load_model(tmp_path / "m.onnx", None, Path(), trust_pickle=False)
    assert "ONNX Runtime" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_a_terabyte_is_not_run_here(tmp_path: Path) -> None:
    nodes = (helper.make_node("Expand", ["v", "s"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"]))
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(*nodes, v=np.float32(1), s=np.array([4, 2**38])).SerializeToString())
    with pytest.raises(BadInput, match="the operators that decode its weights don't run"):
        inspect_onnx(path, constants_apart)


def test_the_child_does_not_import_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "numpy", "json", "resource"):
        (tmp_path / f"{name}.py").write_text("import os\nos.mkdir('ran')\n")
    monkeypatch.chdir(tmp_path)
    run = opened(
        plain().SerializeToString(), 60, [{"x": np.ones((2, 4), np.float32)}, {"x": np.ones((2, 5), np.float32)}]
    )
    assert run.code == RAN
    assert not (tmp_path / "ran").exists()


def test_a_child_that_crashes_or_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(plain().SerializeToString())
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    for body, text in (("kill -SEGV $$", r"ONNX Runtime crashed on it \(signal 11\)"), ("sleep 9", "in 0.1 s")):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setattr(onnx_in, "SECONDS", 0.1 if "sleep" in body else 60)
        with pytest.raises(BadInput, match=text):
            load_model(tmp_path / "m.onnx", None, Path(), trust_pickle=False)


# ---------------------------------------------------------------- archives


def member(path: Path, data: bytes, name: str = "x_train.npy", kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr(name, data)
    return path


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def test_arrays_that_say_to_be_larger_than_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member(tmp_path / "d.npz", header(f"({2**40},)") + bytes(64))

    def read() -> str:
        with pytest.raises(BadInput) as caught:
            load_data("d.npz", mean=None, std=None, base=tmp_path, seed=0)
        return str(caught.value)

    assert f"says to have {2**42} bytes and has 64" in read()
    member(tmp_path / "d.npz", header("(4000000,)") + bytes(16_000_000))
    assert (tmp_path / "d.npz").stat().st_size < 20_000
    monkeypatch.setattr("os.sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else 4096)
    assert "over this machine's 4096000" in read()


def test_names_in_archives_lead_nowhere(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    for name in ("../../x_train.npy", "/x_train.npy"):
        member(tmp_path / "d.npz", header("(2,)") + bytes(8), name)
        with pytest.raises(BadInput, match="no x_train, x_val or x_test in it"):
            load_data("d.npz", mean=None, std=None, base=tmp_path, seed=0)
    with zipfile.ZipFile(tmp_path / "m.pt", "a") as archive:
        archive.writestr("../../escaped", "x")
    with pytest.raises(BadInput, match="not a readable PyTorch file"):
        load_model(tmp_path / "m.pt", None, tmp_path, trust_pickle=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d.npz", "m.pt"]


def test_a_compressed_archive_of_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(tmp_path / "m.pt", "w", 8) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(BadInput, match=r"an archive of \d+ bytes whose parts say to have"):
        load_model(tmp_path / "m.pt", None, tmp_path, trust_pickle=False)


# ---------------------------------------------------------------- texts

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "could not determine a constructor": "target: !!python/object/apply:os.mkdir [ran]",
    "constructor for the tag": "steps: [!!python/name:os.system x]",
    "aliases stand for over": LAUGHS + "target: *i",
    "holds itself": "target: &a [*a]",
    "nested too deep": "target: " + "[" * 2000,
    "signs, over": "#" * (MOST_TEXT + 1),
    "integer string conversion": f"seed: {'9' * 5000}",
}


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_that_is_more_than_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "easycompress.yaml").write_text(TEXTS[text])
    (tmp_path / "r.yaml").write_text(TEXTS[text])
    readers = (lambda: make_request("m.pt", {}), lambda: read_recipe(tmp_path / "r.yaml"))
    for read in readers[: 1 if "deep" in text else 2]:  # half a second each
        with pytest.raises(BadInput, match=f"not valid YAML.*{text}") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert not (tmp_path / "ran").exists()


def test_toml_and_json_that_have_no_bottom(tmp_path: Path) -> None:
    for text in ("x = " + "[" * 20_000, f"seed = {'9' * 5000}", "#" * (MOST_TEXT + 1)):
        with pytest.raises(ValueError, match=r"deep|conversion|signs"):
            read_toml(text)
    (tmp_path / "record.json").write_text("[" * 200_000)
    with pytest.raises(BadInput, match="nested too deep"):
        read_json(tmp_path / "record.json")
    assert read_yaml("a: &a [1]\nb: *a\n") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("shape", "dtype"), [([2**40], "float32"), ([2**14, 2**14, 2**14], "float32"), ([2], "load"), ([2], "nn")]
)
def test_a_record_of_huge_or_strange_samples(shape: list[int], dtype: str) -> None:
    record = {"sample_shape": shape, "sample_dtype": dtype, "records": [], "codes": {}}
    with pytest.raises(BadInput, match="samples of shape"):
        rebuild(torch.nn.Linear(2, 2), record, {}, "out")


# ---------------------------------------------------------------- packed files under right checksums


def test_evenly_coded_symbols_need_their_bytes(tmp_path: Path) -> None:
    stream = bytes(200)  # its first bit says: coded evenly
    payload = bytes([CODEBOOK, 2]) + b"\0" + bytes(8) + varint(len(stream)) + stream
    path = sealed(tmp_path, skeleton_bytes(3000, 3000) + varint(len(payload)), payload)
    with pytest.raises(BadInput, match="a stream shorter than its symbols"):
        read_ecz(path)
    path = sealed(tmp_path, skeleton_bytes(300, 300) + varint(len(payload)), payload)
    assert read_ecz(path)[1]["c"].shape == (300, 300)


def test_a_packed_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.ecz"
    write_ecz(path, *small())
    monkeypatch.setattr("os.sysconf", lambda _: 1)
    with pytest.raises(BadInput, match=r"stands for .* GB of weights, but this machine has 1e-09 GB"):
        read_ecz(path)


def test_a_terminal_gets_no_orders_from_names() -> None:
    screen = io.StringIO()
    evil = "w\x1b]0;title\x07\x1b[2J\u202e"
    row = TensorRow(evil, "float32", (2,), 32.0, 8)
    Terminal(console=Console(file=screen, width=100, markup=False)).inspect_view([row], 9)
    assert "w\ufffd]0;title\ufffd[2J\ufffd" in screen.getvalue()
    assert one_line(ValueError(evil)) == "w\ufffd]0;title\ufffd\ufffd[2J\ufffd"
