"""Each leaf of each tree, carried out: heuristics that lead to it, a plan, a compressed file that runs."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress import compress, planning
from easycompress.measure import latency
from easycompress.measure.files import objective_of
from easycompress.measure.runtime import Runtime
from easycompress.selection import select
from easycompress.selection.explain import TREES
from easycompress.selection.trees.lc import SCHEMES
from easycompress.selection.walk import leaves, walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.plan import Plan
    from easycompress.selection.heuristics import Heuristics

CHAINS = ("quick", "steps", "lesser", "last")
"""The parts of a plan, in the order in which they are carried out where each misses the target, as they do here."""

PERMITTED = 90.0
"""Points that may be lost: what is asked here is what is done, not how well."""


class Logistic(nn.Module):
    """One layer, which is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x.flatten(1))


class Shortcut(nn.Module):
    """A convolution beside an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(x))


class Short(nn.Module):
    """Batch norm, channels that nothing ties, and a block that can go; small, since every run exports it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 8, 3, padding=1)
        self.blocks = nn.Sequential(Shortcut())
        self.output = nn.Linear(8 * 16, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.norm(self.first(x))))
        return self.output(self.blocks(x).flatten(1))


class Rows(nn.Module):
    """A transformer layer over the image's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 4, 8, dropout=0.0, batch_first=True)
        self.output = nn.Linear(64, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layer(x.flatten(1, 2)).flatten(1))


@dataclass(frozen=True)
class Case:
    """A run: `flags` lead to `leaves`, by tree; `did` are the actions that were carried out, in order.

    `known` replaces what trials on copies would measure, so that the way doesn't hang on noise: tests of the trials
    are elsewhere. `blind`: no training data. Dials stand at `strength`, since a search for it isn't what is tested.
    """

    net: type[nn.Module]
    flags: dict[str, Any]
    leaves: dict[str, str]
    did: list[str]
    known: dict[str, dict[str, float]] = field(default_factory=dict)
    blind: bool = False
    strength: float = 0.5


CHANNELS = {"structure_losses": {"channels": 0.0, "ranks": 1.0}}
RANKS = {"structure_losses": {"channels": 1.0, "ranks": 0.0}}
RANKS_BELOW = {"lesser_losses": {"channels": 1.0, "ranks": 0.0}}
CHANNELS_BELOW = {"lesser_losses": {"channels": 0.0, "ranks": 1.0}}


def integers(static: float, dynamic: float) -> dict[str, dict[str, float]]:
    return {"integer_losses": {"static-int8": static, "dynamic-int8": dynamic}}


def learned(scheme: str) -> Case:
    """Return the case of a scheme of codes, which packed files hold whatever is needed."""
    return Case(
        nets.Mlp,
        {"objective": "size", "target": "100x", "format": "packed", "budget": "2ep"},  # what isn't trained misses it
        {"learning-compression": f"entropy-quantization, then lc {scheme}"},
        ["entropy-quantization", "lc"],
        {"losses": {other: float(other != scheme) for other in SCHEMES}},
        strength=0.3,
    )


CASES = {
    "norms": Case(
        Short,
        {"objective": "compute", "target": "1.3x", "budget": "3ep"},
        {
            "pruning strategy": "convolutional",
            "structure": "channels",
            "pruning technique": "bn-scale",
            "distillation": "hard",
            "quantization": "none",
            "learning-compression": "none",
        },
        ["structured-pruning", "distillation"],
        CHANNELS,
    ),
    "no norms": Case(
        nets.Flattened,
        {"objective": "compute", "target": "1.3x", "budget": "1ep", "metric": "agreement"},
        {"pruning strategy": "convolutional", "pruning technique": "group-norm", "distillation": "soft"},
        ["structured-pruning", "distillation"],
        CHANNELS,
    ),
    "every layer": Case(
        Short,
        {"objective": "compute", "target": "8x", "budget": "3ep"},
        {"pruning strategy": "global", "pruning technique": "lamp", "distillation": "combined"},
        ["structured-pruning", "distillation"],
        CHANNELS,
    ),
    "blocks": Case(
        Short,
        {"objective": "latency", "target": "1.1x", "budget": "none"},
        {"structure": "channels and blocks", "distillation": "none", "quantization": "static-int8"},
        ["depth-pruning", "structured-pruning", "static-int8"],
        strength=1.0,
    ),
    "ranks": Case(
        Short,
        {"objective": "energy", "target": "1.1x", "budget": "none"},
        {"structure": "ranks", "quantization": "static-int8"},
        ["low-rank-layers", "static-int8"],
        RANKS,
    ),
    "ranks below what channels miss": Case(
        Short,
        {"objective": "compute", "target": "100x", "budget": "2ep"},
        {"structure": "channels", "structure below the target": "ranks", "distillation": "hard"},
        ["structured-pruning", "distillation", "low-rank-layers", "distillation"],
        CHANNELS | RANKS_BELOW,
        strength=0.2,
    ),
    "channels below what ranks miss": Case(
        Short,
        {"objective": "energy", "target": "100x", "budget": "none"},
        {"structure": "ranks", "structure below the target": "channels", "quantization": "static-int8"},
        ["low-rank-layers", "static-int8", "structured-pruning", "static-int8"],
        RANKS | CHANNELS_BELOW,
        strength=0.2,
    ),
    "neurons": Case(
        nets.Mlp,
        {"objective": "size", "target": "1.5x", "budget": "3ep"},
        {
            "pruning strategy": "linear",
            "structure": "channels",
            "pruning technique": "l1",
            "distillation": "soft",
            "quantization": "weight-only-8",
        },
        ["structured-pruning", "distillation", "weight-only"],
    ),
    "dynamic ranges": Case(
        Logistic,
        {"objective": "size", "target": "6x", "budget": "1ep"},
        {"pruning strategy": "none", "quantization": "dynamic-int8"},
        ["dynamic-int8", "entropy-quantization"],
        integers(9.0, 1.0),
    ),
    "trained integers": Case(
        nets.Mlp,
        {"objective": "size", "target": "6x", "budget": "3ep"},
        {"quantization": "qat-int8"},
        ["structured-pruning", "distillation", "qat-int8", "entropy-quantization"],
        integers(99.0, 99.0),
    ),
    "four bits": Case(
        nets.Mlp,
        {"objective": "size", "target": "4.5x", "budget": "1ep"},
        {"quantization": "weight-only-4"},
        ["weight-only", "entropy-quantization"],
    ),
    "half precision": Case(
        nets.Mlp,
        {"objective": "size", "target": "1.2x", "backend": "gpu", "budget": "none"},
        {"quantization": "float16", "distillation": "none"},
        ["structured-pruning", "float16"],
    ),
    "nothing to prune": Case(
        Logistic,
        {"objective": "size", "target": "6x", "budget": "1ep"},
        {"pruning strategy": "none", "quantization": "static-int8"},
        ["static-int8", "entropy-quantization"],
        integers(0.0, 1.0),
    ),
    "heads": Case(
        Rows,
        {"objective": "compute", "target": "1.1x", "budget": "none"},
        {"pruning strategy": "attention", "pruning technique": "taylor"},
        ["transformer-pruning"],
        CHANNELS,
    ),
    "heads without data": Case(
        Rows,
        {"objective": "compute", "target": "3x", "budget": "1ep"},
        {"pruning strategy": "global", "pruning technique": "group-norm", "distillation": "none"},
        ["transformer-pruning"],
        CHANNELS,
        blind=True,
    ),
    "codes without training": Case(
        nets.Mlp,
        {"objective": "size", "target": "4x", "format": "packed", "budget": "none"},
        {"learning-compression": "entropy-quantization"},
        ["entropy-quantization"],
        strength=0.3,
    ),
    **{scheme: learned(scheme) for scheme in SCHEMES},
    "a transformer's levels": Case(
        Rows,
        {"objective": "size", "target": "100x", "format": "packed", "budget": "2ep"},
        {"learning-compression": "entropy-quantization, then tuned-quantization"},
        ["entropy-quantization", "tuned-quantization"],
        strength=0.3,
    ),
}


def test_every_leaf_has_a_case() -> None:
    for tree, root in TREES.items():
        assert {case.leaves.get(tree) for case in CASES.values()} - {None} == set(leaves(root)), tree


@functools.cache
def trained(net: type[nn.Module]) -> nn.Module:
    """Return the net after a few epochs on the digits: nobody may change it."""
    torch.manual_seed(0)
    model, train = net(), nets.digits().train
    assert train.targets is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for places in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(train.inputs[places]), train.targets[places]).backward()
            optimizer.step()
    return model.eval()


def giving(found: dict[str, float]) -> Callable[..., dict[str, float]]:
    """Return a trial that finds what is known."""
    return lambda *_, **__: found


def splits(case: Case) -> dict[str, Any]:
    """Return what compress() is given as data."""
    data = nets.digits()
    named = {"train": data.train, "validation": data.select, "test": data.report}
    labelled = case.flags.get("metric") != "agreement"
    return {
        name: (split.inputs, split.targets) if labelled else split.inputs
        for name, split in named.items()
        if not (case.blind and name == "train")
    }


@pytest.mark.parametrize("name", CASES)
def test_a_leaf_is_carried_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    asked: list[Heuristics] = []

    def settled(heuristics: Heuristics) -> Plan:
        asked.append(heuristics)
        plan = select.select(heuristics)
        chains = {part: getattr(plan, part) for part in CHAINS}
        return plan.model_copy(update={p: tuple(s.at(case.strength) or s for s in c) for p, c in chains.items()})

    monkeypatch.setattr(planning, "select", settled)
    for trial in ("structure_losses", "structure_speeds", "lesser_losses", "integer_losses", "losses"):
        monkeypatch.setattr(planning, trial, giving(case.known.get(trial, {})))
    monkeypatch.setattr(planning, "narrowing_lost", lambda *_: 0.0)
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    monkeypatch.setattr(latency, "ROUNDS", 1)
    result = compress(
        trained(case.net), **splits(case), out=tmp_path / "out", threads=1, max_drop=f"{PERMITTED}%", **case.flags
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())

    assert {tree: walk(TREES[tree], asked[-1])[0] for tree in case.leaves} == case.leaves
    assert [step["action"] for step in report["steps"]] == case.did
    planned = [step["kind"] for part in CHAINS for step in report["plan"][part]]
    assert planned == case.did
    assert_truthful(case, report, result.out)
    assert result.exit_code == (0 if report["verdict"] == "met" else 1)


def assert_truthful(case: Case, report: dict[str, Any], out: Path) -> None:
    """Measure the files anew: what they weigh and lose is what the report says, and the verdict follows from that."""
    original, packed = trained(case.net), case.flags.get("format") == "packed"
    final = out / "model.onnx"
    test = nets.digits().report
    with torch.no_grad():
        before = original(test.inputs).argmax(1)
    after = torch.from_numpy(Runtime(final, 1).run(test.inputs)).argmax(1)
    assert test.targets is not None
    targets = before if case.flags.get("metric") == "agreement" else test.targets
    drop = 100 * float((before == targets).double().mean() - (after == targets).double().mean())
    assert report["drop"]["estimate"] == pytest.approx(drop, abs=1e-6)
    assert report["drop_met"] is (drop <= PERMITTED)
    if case.flags["objective"] in ("size", "compute"):
        key = {"size": "size_bytes", "compute": "macs"}[case.flags["objective"]]
        counted = final.with_suffix(".ecz") if packed else final
        value = counted.stat().st_size if case.flags["objective"] == "size" else objective_of(final, "compute")
        assert report["final"][key] == value
        assert report["ratio"] == report["baseline"][key] / value
    kept = [step["action"] for step in report["steps"] if step["verdict"] == "kept"]
    assert kept in ([], *([step["kind"] for step in report["plan"][part]] for part in CHAINS))
    gains = [step["after"]["ratio"] for step in report["steps"] if step["verdict"] == "kept"] or [report["ratio"]]
    # One round of timing is the search's word for what was kept; the report's is another, which a busy machine turns.
    gained = gains[-1] if case.flags["objective"] == "latency" else report["ratio"]
    assert (gained > 1) is bool(kept)
    assert kept or case.flags["objective"] == "latency"  # operators so small may take longer in integers
    target_met = report["ratio"] >= float(case.flags["target"].rstrip("x"))
    assert report["target_met"] is target_met
    assert report["verdict"] == ("floor-missed" if drop > PERMITTED else "met" if target_met else "target-missed")
