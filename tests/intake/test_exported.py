"""Exported programs become modules of layers that answer and train as the original; tampered ones never run."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from easycompress.artifact.pt2 import write_pt2
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.intake.archives import OPERATORS, globals_of
from easycompress.intake.models import load_model

if TYPE_CHECKING:
    from pathlib import Path


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.stem(x)), 2)
        x = self.drop(self.up(x))
        return self.head(x.view(x.size(0), -1))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.lstm = nn.LSTM(8, 4, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, ids: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.cat([self.cls.expand(ids.size(0), -1, -1), self.words(ids) * mask[..., None]], 1)
        x, _ = self.lstm(x)
        n, t, d = x.shape
        x = self.norm(x.reshape(n * t, d)).view(n, t, d)
        return {"logits": self.out(x.mean(1)), "states": x}


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return Cnn().eval()


def exported(model: nn.Module, path: Path, *args: torch.Tensor, **options: Any) -> Path:
    keywords = options.pop("kwargs", None)
    torch.export.save(torch.export.export(model, args, keywords, **options), path)
    return path


def read(path: Path, *, trust: bool = False) -> Any:
    return load_model(path, None, path.parent, trust_pickle=trust)


def rewritten(path: Path, change: Any) -> Path:
    """Copy an archive with its parts passed through change(name, data) -> data."""
    made = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info.filename)))
    return made


@pytest.mark.parametrize("batch", [1, 2])
def test_layers_are_real_and_follow_a_batch_that_was_fixed(cnn: nn.Module, tmp_path: Path, batch: int) -> None:
    loaded = read(exported(cnn, tmp_path / "m.pt2", torch.randn(batch, 1, 8, 8)))
    model = loaded.model
    assert isinstance(model.stem[0] if hasattr(model.stem, "__getitem__") else getattr(model.stem, "0"), nn.Conv2d)
    assert isinstance(getattr(model.stem, "1"), nn.BatchNorm2d)
    assert isinstance(model.up, nn.ConvTranspose2d)
    assert isinstance(model.head, nn.Linear)
    assert model.state_dict().keys() == cnn.state_dict().keys()
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(model(x), cnn(x))


def test_a_dynamic_batch_needs_no_note(cnn: nn.Module, tmp_path: Path) -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    loaded = read(exported(cnn, tmp_path / "m.pt2", torch.randn(2, 1, 8, 8), dynamic_shapes=dynamic))
    assert loaded.notes == ()
    x = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(loaded.model(x), cnn(x))


def test_training_is_decided_by_the_module_again(cnn: nn.Module, tmp_path: Path) -> None:
    model = read(exported(cnn, tmp_path / "m.pt2", torch.randn(2, 1, 8, 8))).model.train()
    before = getattr(model.stem, "1").running_mean.clone()
    x = torch.randn(6, 1, 8, 8)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)  # dropout
    assert not torch.equal(before, getattr(model.stem, "1").running_mean)
    first.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_exported_in_training_it_is_read_in_evaluation(cnn: nn.Module, tmp_path: Path) -> None:
    path = exported(cnn.train(), tmp_path / "m.pt2", torch.randn(2, 1, 8, 8))
    loaded = read(path)
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(loaded.model(x), cnn.eval()(x))
    assert any("training mode" in note for note in loaded.notes)


def test_keywords_dicts_recurrence_and_tied_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = Text().eval()
    ids, mask = torch.randint(0, 11, (2, 5)), torch.ones(2, 5)
    model = read(exported(text, tmp_path / "t.pt2", ids, kwargs={"mask": mask})).model
    ids, mask = torch.randint(0, 11, (7, 5)), (torch.rand(7, 5) > 0.3).float()
    given, wanted = model(ids=ids, mask=mask), text(ids, mask=mask)
    assert given.keys() == wanted.keys()
    torch.testing.assert_close(given["logits"], wanted["logits"])
    torch.testing.assert_close(given["states"], wanted["states"])
    assert isinstance(model.lstm, nn.LSTM)
    assert isinstance(model.words, nn.Embedding)
    assert model.out.weight is model.words.weight


class Attends(nn.Module):
    """Attention over (steps, batch, width), whose views could hold a batch of one in several places."""

    def __init__(self, *, batch_first: bool, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.weights = weights
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = x if self.attention.batch_first else x.transpose(0, 1)
        mixed, _ = self.attention(given, given, given, need_weights=self.weights)
        return self.out(x + (mixed if self.attention.batch_first else mixed.transpose(0, 1))).mean(1)


@pytest.mark.parametrize(("batch_first", "weights"), [(True, True), (False, False)])
def test_attention_exported_with_one_sample_takes_any_number(
    *, batch_first: bool, weights: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Attends(batch_first=batch_first, weights=weights).eval()
    loaded = read(exported(model, tmp_path / "m.pt2", torch.randn(1, 5, 8)))
    x = torch.randn(6, 5, 8)
    torch.testing.assert_close(loaded.model(x), model(x))
    assert "exported for a batch of exactly 1; its sizes were made to follow the batch" in loaded.notes


def test_what_mixes_samples_is_refused(tmp_path: Path) -> None:
    class Mixes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    with pytest.raises(CannotCompress, match="fixed to a batch of 2; export it with a dynamic batch"):
        read(exported(Mixes(), tmp_path / "m.pt2", torch.randn(2, 3)))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("part", ["sample_inputs", "constant", "expression", "operator", "deep", "weight"])
def test_a_tampered_program_never_runs(
    cnn: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    dynamic = ({0: torch.export.Dim("batch")},)
    path = exported(cnn, tmp_path / "m.pt2", torch.randn(2, 1, 8, 8), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.save((Evil(),), buffer)

    def change(name: str, data: bytes) -> bytes:  # noqa: PLR0911 - one a case
        if part == "sample_inputs" and "sample_inputs" in name:
            return buffer.getvalue()
        if part == "constant" and name.endswith("model_constants_config.json"):
            entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            return json.dumps({"config": {"x": entry}}).encode()
        if part == "weight" and name.endswith("model_weights_config.json"):
            config = json.loads(data)
            config["config"]["head.weight"]["use_pickle"] = True
            return json.dumps(config).encode()
        if part == "weight" and name.endswith("/weight_0"):
            return buffer.getvalue()
        if part == "expression" and "/models/" in name:
            text = "__import__('os').system('touch ran')"
            return data.replace(b"Symbol('s", text.encode() + b"+Symbol('s", 1)
        if part in ("operator", "deep") and "/models/" in name:
            found = b"torch.os.system" if part == "operator" else b"torch._higher_order_ops.utils.torch.os.system"
            return data.replace(b"torch.ops.aten.relu.default", found, 1)
        return data

    with pytest.raises(BadInput) as caught:
        read(rewritten(path, change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_program_of_another_version_and_no_program(cnn: nn.Module, tmp_path: Path) -> None:
    path = exported(cnn, tmp_path / "m.pt2", torch.randn(2, 1, 8, 8))

    def change(name: str, data: bytes) -> bytes:
        if "/models/" not in name:
            return data
        graph = json.loads(data)
        graph["schema_version"]["major"], graph["torch_version"] = 99, "9.9.0"
        return json.dumps(graph).encode()

    with pytest.raises(BadInput, match=r"can't read this program of torch 9\.9\.0"):
        read(rewritten(path, change))
    (tmp_path / "no.pt2").write_bytes(b"nothing like it")
    with pytest.raises(BadInput, match=r"not a file that torch\.export\.save wrote"):
        read(tmp_path / "no.pt2")


def test_what_is_written_is_read_again(cnn: nn.Module, tmp_path: Path) -> None:
    path = write_pt2(cnn, torch.randn(2, 1, 8, 8), tmp_path / "out.pt2")
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(torch.export.load(path).module()(x), cnn(x))
    again = read(path)
    torch.testing.assert_close(again.model(x), cnn(x))
    write_pt2(again.model, torch.randn(2, 1, 8, 8), tmp_path / "twice.pt2")


def test_globals_are_listed_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), tmp_path / "evil.pt")
    assert any(name.endswith(".system") for name in globals_of((tmp_path / "evil.pt").read_bytes()))
    with pytest.raises(BadInput, match=r"it holds \w+\.system"):
        load_model(tmp_path / "evil.pt", None, tmp_path, trust_pickle=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "known"),
    [("aten.__and__.Tensor", True), ("aten.__ior__.Scalar", True), ("aten.add.Tensor", True), ("aten.__class__", False),
     ("aten.__getattribute__.x", False), ("aten.__and__.__globals__", False), ("prims.__and__.Tensor", False)],
)  # fmt: skip
def test_which_operators_a_program_may_call(name: str, known: bool) -> None:  # noqa: FBT001 - a parameter
    assert bool(OPERATORS.fullmatch(f"torch.ops.{name}")) is known


def test_a_program_is_read_with_gradients_turned_off(cnn: nn.Module, tmp_path: Path) -> None:
    path = write_pt2(cnn, torch.randn(2, 1, 8, 8), tmp_path / "m.pt2")
    with torch.no_grad():
        model = read(path).model
    model(torch.randn(3, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
