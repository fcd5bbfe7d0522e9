from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import nets
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from easycompress.artifact.onnx_export import export
from easycompress.core.errors import CannotCompress
from easycompress.executor.journal import open_journal
from easycompress.lc.ranks import candidates as places
from easycompress.lc.ranks.allocation import chosen
from easycompress.lc.ranks.candidates import Candidate, candidates, see
from easycompress.lc.ranks.decompose import Seen, fitted, thinner
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.lc.ranks.technique import RankReducer
from easycompress.lc.ranks.timing import chain, seconds_of
from easycompress.measure.compute import macs
from easycompress.measure.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from easycompress.executor.journal import Journal
    from easycompress.lc.ranks.settings import Scheme

SCHEMES: tuple[Scheme, ...] = ("scheme-1", "scheme-2", "tucker")


def seen(layer: nn.Module, *shape: int) -> Seen:
    inputs = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Seen(inputs, layer(inputs))


def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 8, 3, stride=2, padding=1)


@pytest.mark.parametrize(("scheme", "ranks"), [("scheme-1", (8,)), ("scheme-2", (18,)), ("tucker", (6, 8))])
def test_full_rank_gives_the_layer_itself(scheme: Scheme, ranks: tuple[int, ...]) -> None:
    layer = conv()
    what = seen(layer, 6, 9, 9)
    torch.testing.assert_close(fitted(layer, scheme, ranks, what)(what.inputs), what.outputs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_full_rank_gives_a_linear_layer_itself(*, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 5, bias=bias)
    what = seen(layer, 7)
    torch.testing.assert_close(fitted(layer, "scheme-1", (5,), what)(what.inputs), what.outputs, atol=1e-4, rtol=1e-4)


def test_no_matrix_of_that_rank_comes_closer_to_what_was_seen() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(12, 8)
    inputs = torch.randn(300, 12) @ torch.diag(torch.logspace(0, -2, 12))  # correlated: where plain SVD is not optimal
    with torch.no_grad():
        what = Seen(inputs, layer(inputs))
        best = float((fitted(layer, "scheme-1", (3,), what)(inputs) - what.outputs).square().sum())
        u, s, v = torch.linalg.svd(layer.weight)
        plain = u[:, :3] @ torch.diag(s[:3]) @ v[:3]
        others = [plain]
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            others.append(torch.randn(8, 3, generator=generator) @ torch.randn(3, 12, generator=generator))
        centred = what.outputs - what.outputs.mean(0)
        for other in others:
            made = inputs @ other.T
            assert best <= float((made - made.mean(0) - centred).square().sum()) * (1 + 1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("stride", [1, 2])
def test_counted_operations_are_the_files(scheme: Scheme, stride: int) -> None:
    layer = nn.Conv2d(6, 8, 3, stride=stride, padding=1)
    ranks = (3, 4) if scheme == "tucker" else (3,)
    example = torch.randn(2, 6, 8, 8)
    area = layer(example)[0, 0].numel()
    counted = places._macs(layer, scheme, ranks, area)
    assert counted == macs(export(thinner(layer, scheme, ranks), example))
    assert places._macs(layer, scheme, None, area) == macs(export(layer, example))


@pytest.mark.parametrize(
    "layers", [[nn.Linear(5, 3), nn.Linear(3, 4, bias=False)], list(thinner(conv(), "tucker", (2, 3)))]
)
def test_the_timed_graph_computes_the_layers(layers: list[nn.Module], tmp_path: Path) -> None:
    shape = (5,) if isinstance(layers[0], nn.Linear) else (6, 9, 9)
    path = tmp_path / "chain.onnx"
    onnx.save(chain(layers, shape), str(path))
    inputs = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = nn.Sequential(*layers)(inputs)
    torch.testing.assert_close(torch.from_numpy(Runtime(path, 1).run(inputs)), expected, atol=1e-5, rtol=1e-4)
    assert seconds_of(layers, shape, 2) > 0


points = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 10)), min_size=1, max_size=5)


@given(st.lists(points, min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_more_strength_saves_no_less_anywhere(rows: list[list[tuple[float, float]]], one: float, other: float) -> None:
    layers = [[Candidate(str(i), "scheme-1", (j,), s, h) for j, (s, h) in enumerate(row)] for i, row in enumerate(rows)]
    weak, strong = (chosen(layers, s) for s in sorted((one, other)))
    savings = [{c.name: c.saved for c in taken} for taken in (weak, strong)]
    assert all(savings[1].get(name, 0) >= saved for name, saved in savings[0].items())
    full = sum(c.saved for c in chosen(layers, 1.0))
    assert full == pytest.approx(sum(max(c.saved for c in row) for row in layers))
    assert sum(savings[1].values()) >= max(one, other) * full * (1 - 1e-6)
    assert chosen(layers, 0.0) == []


def test_the_least_harm_for_each_unit_goes_first() -> None:
    layers = [[Candidate("a", "scheme-1", (1,), 10, 1)], [Candidate("b", "scheme-1", (1,), 10, 5)]]
    assert [c.name for c in chosen(layers, 0.5)] == ["a"]


@pytest.fixture(name="work")
def _work() -> nets.Task:
    return nets.task(nets.make(nets.LeNet))


def test_it_lowers_the_operations_of_the_file(work: nets.Task) -> None:
    before = macs(export(work.model, work.example))
    ratios = []
    context = nets.context(work)
    for strength in (0.0, 0.5, 1.0):
        made = RankReducer().apply(copy.deepcopy(work.model), LowRankLayers(strength=strength), context)
        ratios.append(before / macs(export(made.model, work.example)))
    assert ratios[0] == 1
    assert ratios[0] < ratios[1] < ratios[2]


def test_a_resumed_run_takes_what_the_clock_said_before(work: nets.Task, tmp_path: Path) -> None:
    action = LowRankLayers(strength=0.7, gain="latency")
    layers = [module for module in work.model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]

    def run(journal: Journal, seconds: Callable[..., float]) -> dict[str, object]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(places, "seconds_of", seconds)
            context = dataclasses.replace(nets.context(work), once=journal.once)
            return RankReducer().apply(copy.deepcopy(work.model), action, context).record

    def clock(modules: Iterable[nn.Module], *_: object) -> float:
        return float(sum(p.numel() for module in modules for p in module.parameters()))

    journal = open_journal(tmp_path, {}, resume=False, began=0.0)
    first = run(journal, clock)
    journal.close()
    again = open_journal(tmp_path, {}, resume=True, began=0.0)
    assert first["layers"]
    assert len(layers) > len(first["layers"])  # type: ignore[arg-type]
    assert run(again, lambda *_: pytest.fail("it was timed once more")) == first
    again.close()


def test_a_recorded_structure_takes_the_weights(work: nets.Task) -> None:
    made = RankReducer().apply(copy.deepcopy(work.model), LowRankLayers(strength=0.7), nets.context(work))
    fresh = RankReducer().replay(nets.make(nets.LeNet), made.record, work.example).eval()
    fresh.load_state_dict(made.model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(work.example), made.model(work.example))  # type: ignore[arg-type]


def test_tied_weights_and_layers_that_run_twice_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.twice = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight
            self.free = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.free(self.twice(self.twice(self.two(self.one(x)))))

    assert list(see(Tied(), torch.randn(8, 6))) == ["free"]


def test_a_model_that_nothing_makes_cheaper_is_refused_in_one_line() -> None:
    work = nets.task(nets.make(nets.LeNet))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(CannotCompress, match="low-rank layers: no layer becomes cheaper by low rank"):
        RankReducer().apply(model, LowRankLayers(strength=0), nets.context(work))


def test_a_layer_that_the_forward_looks_into_is_left_alone() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.looked, self.free = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.free(self.looked(x)) * self.looked.weight.mean()

    found = candidates(Looking(), torch.randn(32, 16), LowRankLayers())
    assert {row.name for rows in found for row in rows} == {"free"}


def test_a_replacement_that_is_not_faster_is_no_candidate(work: nets.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "seconds_of", lambda layers, *_: 1.0 if len(list(layers)) == 1 else 2.0)
    action = LowRankLayers(gain="latency")
    assert candidates(work.model, work.data.calibration.inputs[:32], action) == []
    monkeypatch.setattr(places, "seconds_of", lambda layers, *_: 1.0 if len(list(layers)) == 1 else 0.5)
    assert candidates(work.model, work.data.calibration.inputs[:32], action)
