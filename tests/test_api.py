from __future__ import annotations

import copy
import gc
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import Tiny, make, tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import easycompress as ec
from easycompress.executor.journal import open_journal, state_of
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL: dict[str, Any] = {"objective": "size", "target": "3x", "max_drop": "2%", "budget": "none", "threads": 1}
TRAINED: dict[str, Any] = GOAL | {"target": "6x", "budget": "4ep"}


@pytest.fixture(scope="module", autouse=True)
def _short_measurements() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        yield


def small(net: Tiny, count: int = 400) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (x[:count], y[:count]) for name, (x, y) in net.splits.items()}


class Caller(nn.Module):
    """A user's model with everything that a careless library would disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make()
        self.drop = nn.Dropout(0.1)
        self.notes = {"mine": [1, 2]}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.net(x))
        return y


def callers_model() -> Caller:
    model = Caller()
    model.net.load_state_dict(tiny().state)
    model.train()
    model.net[1].eval()
    for parameter in model.net[0].parameters():
        parameter.requires_grad_(False)  # noqa: FBT003 - torch's own
    return model


def snapshot(model: Caller) -> dict[str, Any]:
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "places": {name: value.data_ptr() for name, value in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "types": [type(module) for module in model.modules()],
        "notes": copy.deepcopy(model.notes),
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


@pytest.fixture(scope="module")
def trained() -> tuple[ec.Result, Caller, dict[str, Any], dict[str, Any]]:
    """One run with training on a caller's model, and what the process looked like before and after."""
    model = callers_model()
    model.net[2].register_forward_hook(lambda *_: None)
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 - the global generator is what must not move
    random.seed(11)

    def process() -> dict[str, Any]:
        return {
            "torch": torch.get_rng_state(),
            "numpy": str(np.random.get_state()),  # noqa: NPY002 - see above
            "random": random.getstate(),
            "threads": torch.get_num_threads(),
            "grad": torch.is_grad_enabled(),
            "dtype": torch.get_default_dtype(),
            "folder": Path.cwd(),
        }

    before = {"model": snapshot(model), "process": process(), "data": copy.deepcopy(small(tiny(), 800))}
    data = small(tiny(), 800)
    result = ec.compress(model, **data, **TRAINED)
    return result, model, before, {"model": snapshot(model), "process": process(), "data": data}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("what", ["state", "places", "training", "gradients", "hooks", "types", "notes", "attributes"])
def test_the_caller_s_model_is_bit_for_bit_as_it_was(trained: Any, what: str) -> None:
    _, _, before, after = trained
    assert same(before["model"][what], after["model"][what])


@pytest.mark.parametrize("what", ["torch", "numpy", "random", "threads", "grad", "dtype", "folder"])
def test_the_process_is_as_it_was(trained: Any, what: str) -> None:
    _, _, before, after = trained
    assert same(before["process"][what], after["process"][what])


def test_the_caller_s_data_is_as_it_was(trained: Any) -> None:
    _, _, before, after = trained
    assert same(before["data"], after["data"])


def test_tuples_of_tensors(trained: Any) -> None:
    result = trained[0]
    assert result.report.verdict == "met"
    assert result.exit_code == 0
    assert result.report.ratio >= 6
    assert sum(step.epochs for step in result.report.steps) > 0
    assert result.report.request["model"] == f"{Caller.__module__}.Caller"


def test_what_was_frozen_is_free_in_the_result_alone(trained: Any) -> None:
    result, model, _, _ = trained
    assert all(p.requires_grad for p in result.model.parameters())
    assert not any(p.requires_grad for p in model.net[0].parameters())


def test_the_model_is_what_the_files_hold(trained: Any) -> None:
    result = trained[0]
    loaded = ec.load(result.out, callers_model)
    assert same(dict(loaded.state_dict()), dict(result.model.state_dict()))
    assert not result.model.training
    inputs, _ = tiny().splits["test"]
    session = onnxruntime.InferenceSession(str(result.out / "model.onnx"), providers=["CPUExecutionProvider"])
    (file,) = session.run(["output"], {"x": inputs.numpy()})
    with torch.no_grad():
        module = result.model(inputs).numpy()
    assert (file.argmax(1) == module.argmax(1)).mean() > 0.97
    assert np.abs(file - module).mean() < 0.1 * np.abs(module).mean()


def test_the_model_can_be_trained_on(trained: Any) -> None:
    model = copy.deepcopy(trained[0].model).train()
    model(torch.randn(8, 1, 8, 8)).sum().backward()
    assert model.net[8].weight.grad is not None


def test_save(trained: Any, tmp_path: Path) -> None:
    result = trained[0]
    saved = result.save(tmp_path / "kept" / "here")
    assert saved == tmp_path / "kept" / "here"
    assert {p.name for p in saved.iterdir()} == {p.name for p in result.out.iterdir()}
    assert (saved / "model.onnx").read_bytes() == (result.out / "model.onnx").read_bytes()
    assert state_of(saved) == "finished"
    assert same(dict(ec.load(str(saved), callers_model).state_dict()), dict(result.model.state_dict()))
    assert result.save(str(saved)) == saved  # what easycompress finished is replaced
    assert result.save(result.out) == result.out


def test_save_refuses_what_is_not_ours(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ec.BadInput, match=r"holds other files \(thesis\.tex\)"):
        trained[0].save(tmp_path)
    with pytest.raises(ec.BadInput, match=r"can't be written \(.*\); choose another folder"):
        trained[0].save(tmp_path / "thesis.tex" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_out_the_files_live_as_long_as_the_result() -> None:
    data = small(tiny(), 200)
    result = ec.compress(tiny().model(), **data, **GOAL | {"target": "1x"})
    folder = result.out
    assert (folder / "model.onnx").exists()
    del result
    gc.collect()
    assert not folder.exists()


def test_loaders_and_sets_give_what_tensors_give() -> None:
    data, goal = small(tiny()), GOAL | {"target": "1x"}
    sets = {name: TensorDataset(*pair) for name, pair in data.items()}
    loaders = {name: DataLoader(each, batch_size=37) for name, each in sets.items()}
    reports = [ec.compress(tiny().model(), **given, **goal).report for given in (data, sets, loaders)]  # type: ignore[arg-type]
    assert len({report.baseline.quality for report in reports}) == 1
    assert {report.drop.n for report in reports} == {400}
    assert [report.plan["notes"][0] for report in reports] == [reports[0].plan["notes"][0]] * 3


def test_a_loader_feeds_a_whole_run(tmp_path: Path) -> None:
    loaders = {
        name: DataLoader(TensorDataset(*pair), batch_size=64, shuffle=True) for name, pair in small(tiny()).items()
    }
    result = ec.compress(tiny().model(), **loaders, out=tmp_path / "out", **GOAL)  # type: ignore[arg-type]
    assert result.report.verdict == "met"
    assert result.out == tmp_path / "out"
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result.report.to_json()
    repeated = ec.compress(tiny().model(), **loaders, out=tmp_path / "out", resume=True, **GOAL)  # type: ignore[arg-type]
    assert repeated.report == result.report
    assert same(dict(repeated.model.state_dict()), dict(result.model.state_dict()))
    with pytest.raises(ec.BadInput, match="--resume with another target than the run began with"):
        ec.compress(tiny().model(), **loaders, out=tmp_path / "out", resume=True, **GOAL | {"target": "2x"})  # type: ignore[arg-type]


def test_a_model_that_is_wholly_frozen_still_recovers() -> None:
    model = tiny().model().requires_grad_(False)  # noqa: FBT003 - torch's own
    result = ec.compress(model, **small(tiny()), **GOAL | {"target": "5x", "budget": "2ep"})
    assert sum(step.epochs for step in result.report.steps) > 0
    assert not any(p.requires_grad for p in model.parameters())


class Tied(nn.Module):
    """Two layers that share their weights, and one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.last = nn.Linear(64, 6)
        self.head = self.last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(self.flat(x))))))
        return y


def test_tied_weights_are_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = small(tiny())
    result = ec.compress(
        Tied(), **data, out=tmp_path / "o", **GOAL | {"metric": "agreement", "target": "2x", "max_drop": "10%"}
    )
    assert [step.action for step in result.report.steps if step.verdict == "kept"] == ["weight-only"]
    assert same(dict(ec.load(tmp_path / "o", Tied).state_dict()), dict(result.model.state_dict()))


def refusal(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(ec.EasyCompressError) as error:
        ec.compress(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_keywords_are_checked_before_anything_is_done() -> None:
    model, data = make(), small(tiny(), 20)
    assert refusal(model, **data, tarket="10x") == "compress: no keyword 'tarket'; did you mean target?"
    assert refusal(model, **data, zzz=1) == (
        "compress: no keyword 'zzz'; keywords are the command line's flags with underscores"
    )
    assert "--backend tpu: input should be 'cpu' or 'gpu'" in refusal(model, **data, **GOAL | {"backend": "tpu"})
    assert refusal(model, **data, **GOAL | {"target": 10}) == (
        "--target 10: not a target; write a ratio (10x), a reduction (90%), an amount (120KB) or max"
    )
    assert "--objective beauty: unknown" in refusal(model, **data, **GOAL | {"objective": "beauty"})
    assert "no target given" in refusal(model, **data, objective="size", max_drop="1%")
    assert "no floor given" in refusal(model, **data, objective="size", target="2x")
    assert "no data given" in refusal(model, **GOAL)
    assert "model: a dict; give a torch.nn.Module, or a path and factory=" in refusal({}, **data, **GOAL)
    assert "doesn't exist" in refusal("nowhere.safetensors", **data, **GOAL)


def test_numbers_may_be_numbers() -> None:
    assert "no better than chance" in refusal(make(), **small(tiny(), 200), **GOAL | {"max_drop": 0.5})


class Awkward(nn.Module):
    """Exports well, but runs in no other shape than its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny().model()

    def forward(self, x: Tensor) -> Tensor:
        if shapes(self.net) != SHAPES:
            raise RuntimeError("no other shapes")
        y: Tensor = self.net(x)
        return y


def shapes(net: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(module.weight.shape) for module in net.children() if isinstance(module, (nn.Conv2d, nn.Linear))]


SHAPES = shapes(make())

FIXED = "structured pruning: no channel can be removed with strategy "


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    goal = GOAL | {"objective": "compute", "target": "2x"}
    assert refusal(Awkward(), **small(tiny()), out=tmp_path / "out", **goal).startswith(FIXED)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_pruned_is_still_quantized() -> None:
    result = ec.compress(Awkward(), **small(tiny()), **GOAL | {"target": "2x"})
    notes = result.report.plan["notes"]
    assert any(note.startswith(f"structured-pruning is left out: {FIXED}") for note in notes)
    assert [step["kind"] for step in result.report.plan["steps"]] == ["static-int8"]
    assert result.report.verdict == "met"


def test_a_bug_leaves_what_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("easycompress.carry.execute", broken)
    with pytest.raises(ZeroDivisionError):
        ec.compress(tiny().model(), **small(tiny()), out=tmp_path / "out", **GOAL)
    assert state_of(tmp_path / "out") == "interrupted"


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "out", {}, resume=False, began=0.0)
    assert "another easycompress is working in there" in refusal(
        tiny().model(), **small(tiny()), out=tmp_path / "out", **GOAL | {"force": True}
    )
    journal.close()


def test_a_broken_report_is_not_repeated(tmp_path: Path) -> None:
    data, goal = small(tiny(), 200), GOAL | {"target": "1x"}
    ec.compress(tiny().model(), **data, out=tmp_path / "out", **goal)
    (tmp_path / "out" / "report.json").write_text('{"schema": "easycompress-report/1"}')
    text = refusal(tiny().model(), **data, out=tmp_path / "out", resume=True, **goal)
    assert text.endswith("report.json: not a report of this version; start anew without --resume")


def test_plan_trains_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = callers_model()
    before, state = snapshot(model), torch.get_rng_state()
    chosen, prepared = ec.plan(model, **small(tiny()), **TRAINED)
    assert [step.kind for step in chosen.steps] == ["structured-pruning", "distillation", "static-int8"]
    assert prepared.quality > 90
    assert same(before, snapshot(model))
    assert torch.equal(state, torch.get_rng_state())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("steps: 3", "has no list `steps`; use the recipe.yaml of a finished run"),
        ("[1, 2]", "has no list `steps`"),
        ("steps: [{kind: magic}]", "action 'magic': no such technique"),
        ("steps: [{kind: static-int8, samples: many}]", "recipe: static-int8: samples: Input should be"),
        ("steps: [", "not valid YAML"),
        ("\udcff", "not text; give the recipe.yaml of a finished run"),
        (None, "can't be read (No such file or directory); give a recipe.yaml"),
    ],
)
def test_recipes_that_can_t_be_replayed(tmp_path: Path, text: str | None, wanted: str) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    found = refusal(tiny().model(), **small(tiny(), 100), out=tmp_path / "out", **GOAL | {"recipe": str(path)})
    assert wanted in found
    assert not (tmp_path / "out").exists()
