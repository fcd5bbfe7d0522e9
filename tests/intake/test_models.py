"""Model files become modules; what doesn't fit is said in one line; no code runs from a file that isn't trusted."""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from easycompress.core.errors import BadInput
from easycompress.intake.models import load_model, make_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = Net()

def make(): return Net()
def wide(): return Net(8)
def wrapped(): return Wrapped()
def parallel(): return nn.DataParallel(Net())
def lazy(): return nn.LazyLinear(3)
def fails(): raise KeyError("no weights here\\nand a second line")
def leaves(): raise SystemExit("bye")
def needs(width): return Net(width)
def number(): return 3
def nothing(): pass
def weights(): return Net().state_dict()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def module(folder: Path) -> nn.Module:
    """The factory's net with weights that no initialisation gives."""
    net = make_module("net.py:make", folder)
    with torch.no_grad():
        for index, value in enumerate(net.state_dict().values()):
            value.fill_(index + 1)
    return net


@pytest.fixture
def importable(folder: Path) -> Iterator[Any]:
    """The same net as an importable module, as a training script would have pickled it; unknown again afterwards."""
    name = "net_of_a_pickle"
    (folder / "net.py").rename(folder / f"{name}.py")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.modules.pop(name, None)
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def forget(folder: Path) -> None:
    """Leave the process as a new one would be: the module of the pickled class is neither loaded nor on the path."""
    sys.modules.pop("net_of_a_pickle")
    sys.path.remove(str(folder))


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refused(path: Path, factory: str | None = "net.py:make", *, trust: bool = False) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning on the screen would be a second line
        with pytest.raises(BadInput) as caught:
            load_model(path, factory, path.parent, trust_pickle=trust)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith((str(path), "--factory"))
    return text.removeprefix(f"{path}: ")


# ---------------------------------------------------------------- state dicts


def test_safetensors(folder: Path, module: nn.Module) -> None:
    path = folder / "m.safetensors"
    save_file(module.state_dict(), str(path))
    loaded = load_model(path, "net.py:make", folder, trust_pickle=False)
    assert same(loaded.model, module)
    assert not loaded.model.training
    assert loaded.checkpoint_bytes == path.stat().st_size
    assert loaded.notes == ()


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_state_dict(folder: Path, module: nn.Module, *, legacy: bool) -> None:
    path = save(folder / "m.pt", module.state_dict(), _use_new_zipfile_serialization=not legacy)
    assert same(load_model(path, "net.py:make", folder, trust_pickle=False).model, module)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "module"])
def test_checkpoint_of_a_training_script(folder: Path, module: nn.Module, key: str) -> None:
    path = save(folder / "m.pth", {"epoch": 3, "optimizer": {"state": {}}, key: module.state_dict(), "best": 0.9})
    assert same(load_model(path, "net.py:make", folder, trust_pickle=False).model, module)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_come_off(folder: Path, module: nn.Module, prefix: str) -> None:
    path = save(folder / "m.pt", {f"{prefix}{name}": value for name, value in module.state_dict().items()})
    assert same(load_model(path, "net.py:make", folder, trust_pickle=False).model, module)


def test_a_module_that_really_has_an_attribute_called_module_keeps_its_names(folder: Path) -> None:
    wrapped = make_module("net.py:wrapped", folder)
    path = save(folder / "m.pt", wrapped.state_dict())
    assert same(load_model(path, "net.py:wrapped", folder, trust_pickle=False).model, wrapped)


def test_a_factory_that_returns_data_parallel_gives_the_module_inside(folder: Path, module: nn.Module) -> None:
    path = save(folder / "m.pt", nn.DataParallel(module).state_dict())
    loaded = load_model(path, "net.py:parallel", folder, trust_pickle=False)
    assert not isinstance(loaded.model, nn.DataParallel)
    assert same(loaded.model, module)


def test_the_counter_that_old_checkpoints_lack_is_not_missed(folder: Path, module: nn.Module) -> None:
    state = {n: v for n, v in module.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert len(state) == len(module.state_dict()) - 1
    loaded = load_model(save(folder / "m.pt", state), "net.py:make", folder, trust_pickle=False).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast_and_said(folder: Path, module: nn.Module, kind: torch.dtype) -> None:
    state = {n: v.to(kind) if v.is_floating_point() else v for n, v in module.state_dict().items()}
    path = save(folder / "m.pt", state)
    loaded = load_model(path, "net.py:make", folder, trust_pickle=False)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert same(loaded.model, module)  # small whole numbers are exact in half precision
    assert loaded.notes == (
        f"the checkpoint is stored in half precision ({path.stat().st_size} bytes) and was upcast to float32",
    )


def test_missing_and_unexpected_names_are_listed_sorted(folder: Path, module: nn.Module) -> None:
    state = module.state_dict()
    state["head2.weight"] = state.pop("head.weight")
    state["body.weight"] = torch.zeros(1)
    assert refused(save(folder / "m.pt", state)) == (
        "doesn't fit the factory's module: missing head.weight; unexpected body.weight, head2.weight; "
        "give the factory that it was trained with"
    )


def test_many_names_are_counted(folder: Path) -> None:
    state = {f"layer{i}.weight": torch.zeros(1) for i in range(7)}
    text = refused(save(folder / "m.pt", state))
    assert "missing conv.bias, conv.weight, head.bias, head.weight and 4 more" in text
    assert "unexpected layer0.weight, layer1.weight, layer2.weight, layer3.weight and 3 more" in text
    assert "num_batches_tracked" not in text


def test_wrong_shapes(folder: Path, module: nn.Module) -> None:
    path = save(folder / "m.pt", module.state_dict())
    assert refused(path, "net.py:wide") == (
        "doesn't fit the factory's module: conv.weight is (4, 1, 3, 3), the module's is (8, 1, 3, 3), and 6 more; "
        "give the factory that this file was trained with"
    )


def test_a_state_dict_needs_a_factory(folder: Path, module: nn.Module) -> None:
    assert refused(save(folder / "m.pt", module.state_dict()), None) == (
        "a state dict holds weights only; add --factory file.py:function (it returns the module), "
        "package.module:function or torchvision:resnet18"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds a list, not a state dict; save model.state_dict()"),
        (torch.zeros(3), "holds a Tensor, not a state dict; save model.state_dict()"),
        ({}, "a dict that is no state dict: it holds nothing; save model.state_dict(), bare or under state_dict"),
        (
            {"epoch": 3, "weights": {"a": torch.zeros(1)}},
            "a dict that is no state dict: it holds epoch, weights; save model.state_dict(), bare or under state_dict",
        ),
        (
            {1: torch.zeros(1)},
            "a dict that is no state dict: it holds 1; save model.state_dict(), bare or under state_dict",
        ),
    ],
)
def test_files_without_a_state_dict(folder: Path, content: object, text: str) -> None:
    assert refused(save(folder / "m.pt", content)) == text


# ---------------------------------------------------------------- files that can't be read


def test_missing_file_and_folder(folder: Path) -> None:
    remedy = "give a .safetensors or .pt file with --factory"
    assert refused(folder / "none.pt") == f"doesn't exist; {remedy}"
    (folder / "dir.pt").mkdir()
    assert refused(folder / "dir.pt").startswith("is a folder without config.json; give a Hugging Face folder, or a")


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_empty_file(folder: Path, name: str) -> None:
    (folder / name).touch()
    assert refused(folder / name) == "the file is empty; save or download it again"


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin"])
def test_what_torch_never_wrote_is_not_called_a_pickle(folder: Path, name: str) -> None:
    (folder / name).write_text("<html>404: not found</html>")
    text = refused(folder / name)
    assert text == "not a file that torch.save wrote; give a .pt or .safetensors file with --factory"
    assert "--trust-pickle" not in text


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_file(folder: Path, module: nn.Module, share: float) -> None:
    path = save(folder / "m.pt", module.state_dict())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    text = refused(path)
    assert "torch.save wrote" in text or ("not a readable PyTorch file (" in text and "download it again" in text)


def test_a_zip_of_something_else(folder: Path) -> None:
    with zipfile.ZipFile(folder / "m.pt", "w") as archive:
        archive.writestr("readme", "hello")
    assert refused(folder / "m.pt").startswith("not a readable PyTorch file (")


def test_broken_safetensors(folder: Path) -> None:
    (folder / "m.safetensors").write_bytes(b"\xff" * 40)
    text = refused(folder / "m.safetensors")
    assert text.startswith("not a readable safetensors file (")
    assert text.endswith("; save or download it again")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_whole_module_takes_no_factory(folder: Path, suffix: str) -> None:
    (folder / f"m{suffix}").write_bytes(b"x")
    assert refused(folder / f"m{suffix}") == "holds the whole module; leave --factory out, or give a state dict with it"


def test_torchscript(folder: Path, module: nn.Module) -> None:
    path = folder / "m.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it; users still have the files
        torch.jit.save(torch.jit.trace(module.eval(), torch.zeros(1, 1, 8, 8)), str(path))  # type: ignore[no-untyped-call]
    for trust in (False, True):
        text = refused(path, trust=trust)
        assert text == (
            "a TorchScript archive, whose frozen graph can't be trained on or exported; save "
            "torch.jit.load(...).state_dict() and give it with --factory, or export the original module as .pt2"
        )


# ---------------------------------------------------------------- pickles


def test_a_pickled_module_needs_trust(folder: Path, importable: Any) -> None:
    net = importable.Net()
    path = save(folder / "m.pt", net)
    forget(folder)
    assert refused(path, None) == (
        "a pickled object (it holds net_of_a_pickle.Net), whose loading can run any code; save a state dict instead "
        "(torch.save(model.state_dict(), ...)), or add --trust-pickle if you made this file"
    )
    assert "net_of_a_pickle" not in sys.modules


def test_a_trusted_module_is_read_though_its_class_lies_beside_it(folder: Path, importable: Any) -> None:
    net = importable.Net()
    path = save(folder / "m.pt", net)
    forget(folder)
    before = list(sys.path)
    loaded = load_model(path, None, folder.parent, trust_pickle=True)
    assert same(loaded.model, net)
    assert not loaded.model.training
    assert loaded.notes == ()
    assert sys.path == before


def test_a_trusted_checkpoint_may_hold_the_module_or_other_objects(folder: Path, importable: Any) -> None:
    net = importable.Net()
    inside = save(folder / "a.pt", {"model": net, "epoch": 3})
    beside = save(folder / "b.pt", {"args": argparse.Namespace(lr=0.1), "state_dict": net.state_dict()})
    parallel = save(folder / "c.pt", nn.DataParallel(net))
    factory = "net_of_a_pickle.py:make"
    assert same(load_model(inside, None, folder, trust_pickle=True).model, net)
    assert same(load_model(beside, factory, folder, trust_pickle=True).model, net)
    assert same(load_model(parallel, None, folder, trust_pickle=True).model, net)
    assert "(it holds argparse.Namespace)" in refused(beside, factory)


def test_a_trusted_half_precision_module_is_upcast(folder: Path, importable: Any) -> None:
    path = save(folder / "m.pt", importable.Net().half())
    loaded = load_model(path, None, folder, trust_pickle=True)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert len(loaded.notes) == 1


def test_a_class_that_is_nowhere(folder: Path, importable: Any) -> None:
    path = save(folder / "m.pt", importable.Net())
    forget(folder)
    (folder / "net_of_a_pickle.py").unlink()
    importlib.invalidate_caches()
    assert refused(path, None, trust=True) == (
        "unpickling raised ModuleNotFoundError: No module named 'net_of_a_pickle'; its classes must be importable from "
        "its folder or this one, or save a state dict and give a --factory"
    )


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("form", ["torch", "legacy", "nested", "plain pickle"])
def test_a_malicious_pickle_does_not_run(folder: Path, form: str) -> None:
    path, victim = folder / "m.pt", folder / "ran"
    bad = Malicious(victim)
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(bad))
    elif form == "nested":
        save(path, {"state_dict": {"conv.weight": bad}})
    else:
        save(path, bad, _use_new_zipfile_serialization=form == "torch")
    assert "whose loading can run any code" in refused(path)
    assert "whose loading can run any code" in refused(path, None)
    assert not victim.exists()


def test_the_malicious_pickle_is_a_real_one(folder: Path) -> None:
    save(folder / "m.pt", Malicious(folder / "ran"))
    refused(folder / "m.pt", trust=True)  # trusted it runs, and holds no module
    assert (folder / "ran").is_dir()


# ---------------------------------------------------------------- factories


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("fails", "it raised KeyError: 'no weights here\\nand a second line'; it is called without arguments"),
        ("leaves", "it raised SystemExit: bye; it is called without arguments and must return the module"),
        ("needs", "it raised TypeError: needs() missing 1 required positional argument: 'width'; it is called without"),
        ("number", "it returned a int; it must return a torch.nn.Module"),
        ("nothing", "it returned a NoneType; it must return a torch.nn.Module"),
        ("weights", "it returned a OrderedDict; it must return a torch.nn.Module"),
        ("lazy", "its module has lazy parameters; run it once on an example before returning it"),
    ],
)
def test_factories_that_give_no_module(folder: Path, function: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        make_module(f"net.py:{function}", folder)
    assert str(caught.value).startswith(f"--factory net.py:{function}: {text}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("net.py", "not a function; write file.py:function"),
        ("none.py:make", "no file "),
        ("net.py:mak", "net.py has no function mak; functions there: Net, Wrapped, make"),
        ("no_such_package.net:make", "importing no_such_package.net raised ModuleNotFoundError"),
        ("torchvision:resnet17", "torchvision has no such model; see torchvision.models.list_models()"),
        ("torchvision:", "torchvision has no such model"),
    ],
)
def test_factories_that_are_not_there(folder: Path, factory: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        make_module(factory, folder)
    assert str(caught.value).startswith(f"--factory {factory}: {text}")


def test_torchvision_by_name(folder: Path) -> None:
    model = make_module("torchvision:squeezenet1_1", folder)
    assert type(model).__name__ == "SqueezeNet"
    path = save(folder / "m.pt", model.state_dict())
    loaded = load_model(path, "torchvision:squeezenet1_1", folder, trust_pickle=False)
    assert same(loaded.model, model)


def test_a_factory_of_an_importable_module(folder: Path, module: nn.Module) -> None:
    (folder / "net.py").rename(folder / "factory_by_name.py")
    made = make_module("factory_by_name:make", folder)
    assert made.state_dict().keys() == module.state_dict().keys()
    sys.modules.pop("factory_by_name")
