"""Model files that would run code when loaded: none does without --trust-pickle, and each is refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_bert
import torch
from torch import nn

from easycompress.core.errors import BadInput, CannotCompress
from easycompress.executor.replay import load
from easycompress.intake.config import make_request
from easycompress.intake.data import load_data
from easycompress.intake.models import load_model
from easycompress.intake.program_names import is_guard, strange_name
from easycompress.training.checkpoint import load_tensors

if TYPE_CHECKING:
    from collections.abc import Callable


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(path: Path) -> str:
    with pytest.raises((BadInput, CannotCompress)) as caught:
        load_model(path, None, Path(), trust_pickle=False)
    assert not Path("ran").exists()
    text = str(caught.value)
    assert "\n" not in text
    return text


def tar_of(data: bytes, first: str) -> bytes:
    """A file as torch wrote it before 2017, its first member under this name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in (first, "sys_info", "pickle", "tensors", "storages"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("first", ["storages", "\x80\x02evil"])
def test_old_archives_of_torch_are_refused(folder: Path, first: str) -> None:
    (folder / "m.pt").write_bytes(tar_of(pickle.dumps(Evil()), first))
    assert "PyTorch file" in refused(folder / "m.pt") or "not a file that torch.save wrote" in refused(folder / "m.pt")


def test_a_pickle_in_front_of_an_archive_is_refused(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "good.pt")
    (folder / "m.pt").write_bytes(pickle.dumps(Evil()) + (folder / "good.pt").read_bytes())
    refused(folder / "m.pt")


def test_arrays_of_objects_are_not_unpickled(folder: Path) -> None:
    np.savez(folder / "d.npz", x_train=np.array([Evil()], dtype=object), y_train=np.zeros(1))
    with pytest.raises(BadInput, match=r"not a readable \.npz of plain arrays"):
        load_data("d.npz", mean=None, std=None, base=folder, seed=0)
    assert not Path("ran").exists()


def test_a_stranger_s_checkpoint_is_not_unpickled(folder: Path) -> None:
    torch.save(Evil(), folder / "a.checkpoint")
    assert load_tensors(folder / "a.checkpoint") is None
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    (folder / "record.json").write_text(json.dumps({"schema": "easycompress-record/2", "records": [], "codes": {}}))
    with pytest.raises(BadInput, match="can't be read"):
        load(folder, lambda: nn.Linear(2, 2))
    (folder / "model.pt2").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BadInput, match=r"not a file that torch\.export\.save wrote"):
        load(folder)
    assert not Path("ran").exists()


def test_a_data_folder_s_scripts_are_not_run(folder: Path) -> None:
    (folder / "data").mkdir()
    for name in ("data.py", "dataset.py", "__init__.py", "conftest.py"):
        (folder / "data" / name).write_text("import os\nos.mkdir('ran')\n")
    with pytest.raises(BadInput, match="no class folders"):
        load_data("data", mean=None, std=None, base=folder, seed=0)
    assert not Path("ran").exists()


def test_a_settings_file_does_not_trust_in_the_user_s_name(folder: Path) -> None:
    torch.save(Evil(), folder / "m.pt")
    (folder / "easycompress.toml").write_text("trust_pickle = true\n")
    with pytest.raises(BadInput, match="trust_pickle belongs on the command line"):
        make_request("m.pt", {})
    model = folder / "net"
    model.mkdir()
    (model / "easycompress.toml").write_text('metric = "evil.py:score"\n')
    (folder / "easycompress.toml").unlink()
    with pytest.raises(BadInput, match="metric names code, and the file lies in the model's own folder"):
        make_request("net", {})


# ---------------------------------------------------------------- exported programs


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.randn(2, 4),)), path)
    return path


def changed(program: Path, folder: Path, change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(folder / "m.pt2", "w", kind) as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return folder / "m.pt2"


def in_graph(edit: Callable[[dict[str, Any]], Any]) -> Callable[[str, bytes], bytes]:
    """Return what edits the JSON of the graph alone."""

    def change(name: str, data: bytes) -> bytes:
        if "/models/" not in name:
            return data
        content = json.loads(data)
        edit(content)
        return json.dumps(content).encode()

    return change


def test_an_operator_handed_to_an_operator_is_refused(program: Path, folder: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for node in content["graph_module"]["graph"]["nodes"]:
            if node["target"] == "torch.ops.aten.relu.default":
                node["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
                node["is_hop_single_tensor_return"] = True
                given = ({"as_bool": True}, {"as_operator": "torch.os.system"}, {"as_string": "touch ran"})
                node["inputs"] = [{"name": "", "arg": arg, "kind": 1} for arg in given]

    assert "holds the name 'torch.os.system', which is none" in refused(changed(program, folder, in_graph(edit)))


@pytest.mark.parametrize("old", ["input", "0.weight", "p_0_weight", "relu"])
def test_names_that_are_code_are_refused(program: Path, folder: Path, old: str) -> None:
    code = "x:__import__('os').mkdir('ran')"  # loading writes names into Python source

    def change(name: str, data: bytes) -> bytes:
        return data.replace(f'"{old}"'.encode(), f'"{code}"'.encode()) if name.endswith(".json") else data

    assert "which is none" in refused(changed(program, folder, change))


def test_names_in_the_nesting_of_arguments_are_looked_at() -> None:
    spec = '[1, {"type": "builtins.dict", "context": "[\\"x=exit()\\"]", "children_spec": []}]'
    assert strange_name({"in_spec": spec}) == "x=exit()"
    assert strange_name({"in_spec": spec.replace("=exit()", "")}) is None
    assert strange_name({"as_operator": "math.os"}) == "math.os"
    known = {"as_string": "any; text()", "expr_str": "Mod(s0, 2)", "as_operator": "torch.ops.aten.add"}
    assert strange_name(known) is None
    assert strange_name({"as_tensors": [{"name": "x y"}]}) == "x y"


def test_a_compressed_program_and_a_tensor_larger_than_its_bytes_are_refused(program: Path, folder: Path) -> None:
    path = changed(program, folder, lambda _, data: data + bytes(10**6) * data.startswith(b"{"), zipfile.ZIP_DEFLATED)
    assert "bytes whose parts say to have" in refused(path)

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("model_weights_config.json"):
            return data
        content = json.loads(data)
        entry = next(iter(content["config"].values()))
        entry["tensor_meta"]["sizes"], entry["tensor_meta"]["strides"] = [{"as_int": 2**40}], [{"as_int": 0}]
        return json.dumps(content).encode()

    assert "is larger than its bytes" in refused(changed(program, folder, change))


def test_the_program_itself_is_read(program: Path, folder: Path) -> None:
    load_model(changed(program, folder, lambda _, data: data), None, Path(), trust_pickle=False)


# ---------------------------------------------------------------- Hugging Face folders

CODE = "import os\nos.mkdir('ran')\nclass Bert: pass\nclass Tok: pass\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tiny_bert.folder(tmp_path_factory.mktemp("bert") / "bert")
    return made


@pytest.fixture
def bert(written: Path, folder: Path) -> Path:
    target = folder / "bert"
    target.mkdir()
    for file in written.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    for name in ("code.py", "modeling_x.py", "tokenization_x.py", "__init__.py"):
        (target / name).write_text(CODE)
    return target


def edit(bert: Path, file: str = "config.json", **values: Any) -> None:
    (bert / file).write_text(json.dumps(json.loads((bert / file).read_text()) | values))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"architectures": ["Bert"], "auto_map": {"AutoModel": "code.Bert"}}, "never runs"),
        ({"architectures": ["AutoModel"], "auto_map": {"AutoModel": "code.Bert"}}, "never runs"),
        ({"architectures": ["BertConfig"]}, "architecture BertConfig is unknown"),
        ({"_attn_implementation": "owner/kernel"}, "names code on the Hub, which is never run"),
        ({"vision_config": {"attn_implementation": "owner/kernel:f"}}, "names code on the Hub"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized already"),
    ],
)
def test_a_configuration_that_asks_for_code(bert: Path, values: dict[str, Any], text: str) -> None:
    edit(bert, **values)
    assert text in refused(bert)


def test_a_tokenizer_with_code_is_read_without_it(bert: Path) -> None:
    edit(bert, "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tok", "code.Tok"]}, tokenizer_class="Tok")
    load_model(bert, None, Path(), trust_pickle=False)
    assert not Path("ran").exists()


def test_weights_that_are_pickles_or_lie_elsewhere(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "model-1.safetensors")
    index = bert / "model.safetensors.index.json"
    for name in ("../bert/model-1.safetensors", "/etc/passwd", "a\\b", ".."):
        index.write_text(json.dumps({"weight_map": {"bert.pooler.dense.bias": name}}))
        assert "no file of this folder" in refused(bert)
    torch.save({"w": Evil()}, bert / "evil.bin")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"bert.pooler.dense.bias": "evil.bin"}}))
    assert "the weights don't make a BertForSequenceClassification" in refused(bert)
    index.unlink()
    (bert / "model-1.safetensors").unlink()
    torch.save({"w": Evil()}, bert / "pytorch_model.bin")
    assert "add --trust-pickle" in refused(bert)


def test_an_adapter_and_a_bottomless_configuration(bert: Path) -> None:
    (bert / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    assert "an adapter" in refused(bert)
    (bert / "config.json").write_text("[" * 100_000)
    assert "nested too deep" in refused(bert)


def test_conditions_on_sizes_may_only_reckon() -> None:
    good = ("L['a'].size()[0] == L['b'].size()[0]", "L['args'][0].size()[1] % 4 == 0 and not L['x'].size()[0] < 2")
    bad = (
        "__import__('os').system('x')", "L['a'].size(0)", "L.__class__", "(lambda: 1)()", "[x for x in L]", "open('x')",
        "L['a'].size().__class__", "L['a'] if 1 else 2", "x == 1", "f'{L}'", "1;2", "(" * 5000,
    )  # fmt: skip
    assert all(is_guard(text) for text in good)
    assert not any(is_guard(text) for text in bad)
    assert strange_name({"guards_code": list(good)}) is None
    assert strange_name({"guards_code": [*good, bad[0]]}) == bad[0]
