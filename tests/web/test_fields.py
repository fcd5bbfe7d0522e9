from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.core.errors import BadInput
from easycompress.web.fields import Fields, Wrong, field_of, plain
from easycompress.web.places import places
from easycompress.web.schema import check_settings
from easycompress.web.settings import Settings
from easycompress.web.uploads import TooLarge, Upload, Uploads, clean_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

METRIC = {"name": "accuracy", "percent": True}
TENSORS = b"\x02\0\0\0\0\0\0\0{}"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "uploads").mkdir()
    return Uploads(tmp_path / "uploads", 1000)


@pytest.fixture
def fields(settings: Settings, uploads: Uploads) -> Fields:
    return Fields(settings, uploads)


@pytest.fixture
def walled(settings: Settings, uploads: Uploads) -> Fields:
    """Fields of a server that may read its working folder only."""
    return Fields(Settings(folder=settings.folder, work=settings.work, root=settings.work, token="t" * 16), uploads)


def sent(uploads: Uploads, name: str, content: bytes, *, declared: int | None = None, pieces: int = 3) -> Upload:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), pieces):
            yield content[start : start + pieces]

    return asyncio.run(uploads.take(name, declared, chunks()))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("model.onnx", "model.onnx"),
        ("../../etc/passwd.npz", "passwd.npz"),
        ("C:\\models\\net.onnx", "net.onnx"),
        (".hidden.npz", "hidden.npz"),
        ("a b;rm -rf $HOME.npz", "a_b_rm_-rf_HOME.npz"),
        ("n\u00e4t\n.onnx", "n_t_.onnx"),
        ("x" * 500 + ".npz", "x" * 80 + ".npz"),
    ],
)
def test_names_of_uploads_are_plain(given: str, made: str) -> None:
    assert clean_name(given) == made


def test_an_upload_is_kept_byte_for_byte(uploads: Uploads) -> None:
    upload = sent(uploads, "../net.safetensors", TENSORS, declared=len(TENSORS))
    assert upload.path.read_bytes() == TENSORS
    assert uploads.find(upload.spec).path == upload.path
    assert upload.path.parent.parent.name == "uploads"


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "pytorch_model.bin", "x.PKL", "data.npy", "net.tar"])
def test_pickles_are_refused_with_what_to_do(uploads: Uploads, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"a pickle can run any code when it is read.*safetensors"):
        sent(uploads, name, b"\x80\x04")
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.safetensors", b"\x80\x04\x95 a pickle"),
        ("net.safetensors", b"PK\x03\x04 torch's archive"),
        ("net.onnx", b"\x80\x04\x95 a pickle"),
        ("net.pt2", b"\x08\x07 a graph"),
        ("data.npz", b"\x93NUMPY"),
        ("data.npz", b""),
    ],
)
def test_a_renamed_file_is_refused_and_not_kept(uploads: Uploads, tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(BadInput):
        sent(uploads, name, content)
    assert list((tmp_path / "uploads").iterdir()) == []


def test_code_is_refused(uploads: Uploads) -> None:
    with pytest.raises(BadInput, match="uploaded code is never run"):
        sent(uploads, "factory.py", b"import os")


def test_too_much_is_refused_while_it_comes(uploads: Uploads, tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 100
            yield b"PK\x03\x04" + b"\0" * 96

    with pytest.raises(TooLarge, match="larger than 1"):
        asyncio.run(uploads.take("data.npz", None, endless()))
    assert taken <= 1200
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_that_broke_off_is_refused(uploads: Uploads, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="10 of 99 bytes came"):
        sent(uploads, "net.safetensors", TENSORS, declared=99)
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [
        "upload:../../etc/passwd",
        "upload:0123456789abcdef/x.npz",
        "upload:",
        "upload:..",
        "upload:0123456789abcdef/../x",
    ],
)
def test_a_name_of_no_upload_leads_nowhere(uploads: Uploads, spec: str) -> None:
    with pytest.raises(BadInput, match="this upload is gone"):
        uploads.find(spec)


def test_old_uploads_of_no_run_are_swept(uploads: Uploads) -> None:
    kept, gone = sent(uploads, "a.safetensors", TENSORS), sent(uploads, "b.safetensors", TENSORS)
    now = kept.path.stat().st_mtime
    uploads.sweep({kept.spec}, now + 10, 60)
    assert gone.path.exists()
    uploads.sweep({kept.spec}, now + 100, 60)
    assert kept.path.exists()
    assert not gone.path.exists()


def refused(fields: Fields, **given: Any) -> dict[str, str]:
    with pytest.raises(Wrong) as error:
        fields.model({"model": "net.onnx", **given})
    return error.value.lines


def test_flags_of_a_model_are_absolute(fields: Fields, work: Path) -> None:
    given = {
        "model": " net.onnx ",
        "data": "data.npz",
        "factory": "net.py:make",
        "mean": "0.5, 0.4",
        "std": "[1,2]",
        "columns": "",
    }
    assert fields.model(given) == {
        "model": str(work / "net.onnx"), "data": str(work / "data.npz"), "factory": f"{work / 'net.py'}:make",
        "mean": [0.5, 0.4], "std": [1.0, 2.0],
    }  # fmt: skip


def test_nothing_makes_the_server_trust_a_pickle(fields: Fields) -> None:
    flags = fields.model({"model": "net.onnx", "trust_pickle": True, "recipe": "/etc/passwd", "out": "elsewhere"})
    assert set(flags) == {"model"}
    goal = fields.goal(
        {"target": "10x", "max_drop": "1%", "trust_pickle": True, "recipe": "x", "out": "elsewhere"}, METRIC
    )
    assert set(goal) == {"target", "max_drop"}


def test_what_is_wrong_is_told_field_by_field(fields: Fields) -> None:
    lines = refused(fields, model="none.onnx", data="none.npz", mean="a", std="-1", shape="3x3", factory="net.py")
    assert set(lines) == {"model", "data", "mean", "std", "shape", "factory"}
    assert lines["model"].startswith("none.onnx: no such file")
    assert set(refused(fields, mean="0.5")) == {"std"}
    assert set(refused(fields, model="")) == {"model"}


def test_behind_a_wall_paths_stay_inside(walled: Fields, work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.onnx"
    outside.write_bytes(b"x")
    (work / "link.onnx").symlink_to(outside)
    for model in (str(outside), "../secret.onnx", "link.onnx", "~/x.onnx"):
        assert "outside of the folder" in refused(walled, model=model)["model"]
    assert walled.model({"model": "net.onnx"})["model"] == str(work / "net.onnx")
    assert "outside" in refused(walled, data="/etc")["data"]
    assert "outside" in refused(walled, metric="/etc/x.py:run")["metric"]
    assert "outside" in refused(walled, factory="../x.py:make")["factory"]


def test_behind_a_wall_neither_modules_nor_the_hub_are_named(walled: Fields, fields: Fields) -> None:
    assert "factory" in refused(walled, factory="os:getcwd")
    assert "data" in refused(walled, data="imdb")
    assert fields.model({"model": "net.onnx", "factory": "package.models:make"})["factory"] == "package.models:make"
    assert walled.model({"model": "net.onnx", "data": "digits", "factory": "torchvision:resnet18"})["data"] == "digits"


@pytest.mark.usefixtures("work")
def test_an_upload_s_factory_is_torchvision_s_or_a_file_of_the_server(fields: Fields, uploads: Uploads) -> None:
    spec = sent(uploads, "net.safetensors", TENSORS).spec
    assert "factory" in refused(fields, model=spec, factory="package.models:make")
    assert "factory" in refused(fields, model=spec, factory=f"{spec}:make")
    for factory in ("torchvision:resnet18", "net.py:make"):
        assert fields.model({"model": spec, "factory": factory})["factory"].endswith(factory)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"target": "10y"}, "target"),
        ({"target": ""}, "target"),
        ({"objective": "beauty"}, "objective"),
        ({"max_drop": "many"}, "max_drop"),
        ({"max_drop": ""}, "max_drop"),
        ({"budget": "soon"}, "budget"),
        ({"batch": "0"}, "batch"),
        ({"repeats": "1000"}, "repeats"),
        ({"also": "zip"}, "also"),
        ({"format": "rar"}, "format"),
    ],
)
def test_a_senseless_goal_is_told_at_its_field(fields: Fields, given: dict[str, str], field: str) -> None:
    with pytest.raises(Wrong) as error:
        fields.goal({"objective": "size", "target": "10x", "max_drop": "1%", **given}, METRIC)
    assert set(error.value.lines) == {field}
    assert not error.value.lines[field].startswith("--")


def test_a_floor_depends_on_the_metric(fields: Fields) -> None:
    with pytest.raises(Wrong, match="is not a percentage"):
        fields.goal({"target": "2x", "max_drop": "1%"}, {"name": "mse", "percent": False})
    with pytest.raises(Wrong, match="without data"):
        fields.goal({"target": "2x", "max_drop": "1%"}, None)
    assert fields.goal({"target": "2x"}, None) == {"target": "2x"}


def test_a_line_of_the_command_line_finds_its_field() -> None:
    assert field_of("the model's accuracy is chance: usually --mean and --std are missing") == "mean"
    assert field_of("--max-drop 1%: mse is not a percentage") == "max_drop"
    assert field_of("--recipe x: broken") is None
    assert plain("--target 10y: unknown unit; use x") == "unknown unit; use x"


SCHEMA = {"properties": {
    "kind": {"const": "lc", "type": "string"}, "rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "steps": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "on": {"type": "boolean"},
    "by": {"enum": ["a", "b"], "type": "string"},
    "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("rate", 0.5, None), ("rate", 1, None), ("rate", 0, "must be more than 0"), ("rate", 2, "must be at most 1"),
        ("rate", "x", "write a number"), ("rate", True, "write a number"), ("rate", float("nan"), "write a number"),
        ("steps", None, None), ("steps", 3, None), ("steps", 0, "must be at least 1"),
        ("steps", 1.5, "write a whole number"),
        ("on", False, None), ("on", 1, "must be a boolean"), ("by", "b", None), ("by", "c", "choose one of a, b"),
        ("names", ["x"], None), ("names", [], "choose at least one"), ("names", [1], "must be a string"),
        ("kind", "os", "must be lc"), ("other", 1, "no such setting"),
    ],
)  # fmt: skip
def test_settings_are_held_against_their_schema(name: str, value: object, line: str | None) -> None:
    assert check_settings({name: value}, SCHEMA) == ({} if line is None else {name: line})


def test_models_and_data_are_suggested_but_no_results(settings: Settings, work: Path) -> None:
    for name in (
        "runs/out/model.onnx",
        "runs/out/record.json",
        ".hidden/x.onnx",
        "deep/a/b/c/d/x.onnx",
        "sub/y.safetensors",
    ):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("")
    (settings.folder / "uploads").mkdir(parents=True)
    (settings.folder / "uploads" / "z.onnx").write_text("")
    assert places(settings) == {"models": ["bad.onnx", "net.onnx", "sub/y.safetensors"], "data": ["data.npz"]}
