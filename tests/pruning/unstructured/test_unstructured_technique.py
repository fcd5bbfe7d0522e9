from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress
from easycompress.core.task import Split
from easycompress.measure.decoded import decoded
from easycompress.measure.runtime import Runtime
from easycompress.pruning.unstructured.settings import UnstructuredPruning
from easycompress.pruning.unstructured.technique import UnstructuredPruner, prunable
from easycompress.pruning.unstructured.training import MOMENTUM, RATE, Masked
from easycompress.training.norms import reestimate

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.technique import Applied

PRUNER = UnstructuredPruner()


def prune(net: type[nn.Module] = nets.Mlp, epochs: int = 0, **settings: Any) -> Applied:
    work = nets.task(nets.make(net))
    context = nets.training_context(work, epochs) if epochs else nets.context(work)
    return PRUNER.apply(copy.deepcopy(work.model), UnstructuredPruning(**settings), context)


def nonzeros(model: nn.Module) -> int:
    return sum(int(torch.count_nonzero(weight)) for weight in prunable(model).values())


def test_strength_zero_is_identity() -> None:
    result = prune(strength=0.0)
    assert nets.same_state(result.model.state_dict(), nets.make(nets.Mlp).state_dict())
    assert result.codes == {}


@pytest.mark.parametrize("criterion", ["magnitude", "obd"])
@pytest.mark.parametrize("epochs", [0, 4])
def test_as_many_stay_as_the_strength_says(criterion: str, epochs: int) -> None:
    result = prune(epochs=epochs, strength=0.4, criterion=criterion, samples=16)
    total = sum(weight.numel() for weight in prunable(result.model).values())
    assert nonzeros(result.model) == round(1e-3**0.4 * total)
    assert result.record["kept"] == nonzeros(result.model) / total
    assert result.epochs <= epochs


def test_the_largest_stay_and_the_biases_do() -> None:
    before, result = nets.make(nets.Mlp), prune(strength=0.3)
    old, new = prunable(before), prunable(result.model)
    gone = torch.cat([old[name].detach()[new[name] == 0].abs() for name in old])
    stay = torch.cat([old[name].detach()[new[name] != 0].abs() for name in old])
    assert float(gone.max()) <= float(stay.min())
    assert torch.equal(result.model.get_parameter("output.bias"), before.get_parameter("output.bias"))
    assert result.codes.keys() == old.keys()


def test_obd_removes_what_no_sample_sees() -> None:
    """The digits' first pixel is always black: whatever its weights are, removing them costs nothing."""
    work = nets.task(nets.make(nets.Mlp))
    with torch.no_grad():
        work.model.get_parameter("hidden1.weight")[:, 0] = 100.0
    kept = {}
    for criterion in ("magnitude", "obd"):
        action = UnstructuredPruning(strength=0.2, criterion=criterion, samples=16)
        result = PRUNER.apply(copy.deepcopy(work.model), action, nets.context(work))
        kept[criterion] = int(torch.count_nonzero(result.model.get_parameter("hidden1.weight")[:, 0]))
    assert kept == {"magnitude": 24, "obd": 0}


def test_batch_norm_fits_the_weights_that_stay() -> None:
    work = nets.task(nets.make(nets.BatchNormed))
    reestimate(work.model, work.data.calibration.inputs)  # it fits before
    result = PRUNER.apply(copy.deepcopy(work.model), UnstructuredPruning(strength=0.2), nets.context(work))
    seen: list[Tensor] = []
    layer = result.model.get_submodule("features.0")
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        result.model(nets.digits().calibration.inputs)
    assert torch.allclose(seen[0].mean((0, 2, 3)), result.model.get_buffer("features.1.running_mean"), atol=1e-3)


def test_removed_weights_stay_zero_through_training() -> None:
    work = nets.task(nets.make(nets.BatchNormed))
    model = copy.deepcopy(work.model)
    weights = prunable(model)
    masks = {name: weight.detach().abs() > weight.detach().abs().median() for name, weight in weights.items()}
    training = Masked(model, weights, UnstructuredPruning(strength=0.5), nets.training_context(work, 2))
    training.with_penalty(1)  # fills the optimizer's momentum, if any were kept
    training.put(masks)
    training.finish(2)
    assert training.epochs == 3
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    moved = nets.make(nets.BatchNormed).state_dict()
    assert all(not torch.equal(weights[name], moved[name] * mask) for name, mask in masks.items())


def test_a_round_never_brings_a_weight_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    put = Masked.put

    def spy(self: Masked, masks: dict[str, Tensor]) -> None:
        seen.append(dict(masks))
        put(self, masks)

    monkeypatch.setattr(Masked, "put", spy)
    prune(epochs=6, strength=0.5, rounds=4)
    assert len(seen) == 4
    for before, after in itertools.pairwise(seen):
        assert all(bool((before[name] | ~after[name]).all()) for name in after)


@pytest.mark.parametrize(("kind", "factor"), [("l1", None), ("l2", 1 / (1 + 2 * 0.01 * RATE / (1 - MOMENTUM)))])
def test_the_penalty_is_its_proximal_step(kind: Any, factor: float | None) -> None:
    work = nets.task(nets.make(nets.Mlp))
    weights = prunable(work.model)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    action = UnstructuredPruning(strength=0.5, regularization=kind, penalty=0.01)
    Masked(work.model, weights, action, nets.training_context(work))._after_step(RATE)
    step = 0.01 * RATE / (1 - MOMENTUM)
    for name, weight in weights.items():
        old = before[name]
        expected = old * factor if factor else old.sign() * (old.abs() - step).clamp(min=0)
        assert torch.allclose(weight, expected, atol=1e-7)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_a_pattern_is_exact_in_the_result(pattern: Any) -> None:
    kept, among = (int(part) for part in pattern.split(":"))
    result = prune(epochs=2, strength=0.01, n_m=pattern)
    weight = result.model.get_parameter("hidden1.weight")
    assert set((weight.reshape(-1, among) != 0).sum(1).tolist()) == {kept}


@pytest.mark.parametrize(("net", "rounding"), [(nets.Mlp, 1e-5), (nets.BatchNormed, 2e-3)])
def test_the_file_holds_the_weights(net: type[nn.Module], rounding: float, tmp_path: Path) -> None:
    """`rounding` is relative to the largest output: folded batch norm is stored in float16, everything else exactly."""
    result = prune(net, epochs=2, strength=0.1)
    assert all(code.form == "sparse" for code in result.codes.values())
    inputs = nets.images(7, seed=3)
    write_model(result.model, nets.images(2), tmp_path / "model.onnx", codes=result.codes)
    with torch.no_grad():
        expected = result.model(inputs).numpy()
    answers = Runtime(tmp_path / "model.onnx", 1).outputs(Split(inputs, None))
    assert np.abs(answers - expected).max() <= rounding * np.abs(expected).max()
    held = decoded(onnx.load(str(tmp_path / "model.onnx")))
    output = np.sort(result.model.get_parameter("output.weight").detach().numpy(), None)  # no batch norm after it
    found = [np.sort(numpy_helper.to_array(tensor), None) for tensor in held.graph.initializer]
    assert any(np.array_equal(values, output) for values in found)


def test_an_untrained_file_is_about_as_large_as_the_trained_one(tmp_path: Path) -> None:
    sizes = []
    for epochs in (0, 6):
        result = prune(epochs=epochs, strength=0.2)
        path = write_model(result.model, nets.images(2), tmp_path / f"{epochs}.onnx", codes=result.codes)
        sizes.append(path.stat().st_size)
    assert sizes[1] <= UnstructuredPruning.slack * sizes[0]


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    work = nets.task(nets.make(nets.Mlp))
    action = UnstructuredPruning(strength=0.4, rounds=3, regularization="l1")
    full = PRUNER.apply(copy.deepcopy(work.model), action, nets.training_context(work, 6))
    context = nets.training_context(work, 6, checkpoint=lambda part: tmp_path / part)
    calls = itertools.count()

    def killed(model: nn.Module) -> float:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return nets.accuracy(model)

    with pytest.raises(KeyboardInterrupt):
        PRUNER.apply(copy.deepcopy(work.model), action, replace(context, evaluate=killed))
    again = PRUNER.apply(copy.deepcopy(work.model), action, context)
    assert nets.same_state(again.model.state_dict(), full.model.state_dict())


def test_out_of_time_still_removes_everything() -> None:
    work = nets.task(nets.make(nets.Mlp))
    context = nets.training_context(work, 6, out_of_time=lambda _: True)
    result = PRUNER.apply(copy.deepcopy(work.model), UnstructuredPruning(strength=0.4, rounds=4), context)
    assert result.record["kept"] == pytest.approx(1e-3**0.4, abs=1e-3)
    assert result.epochs <= 1


def test_obd_without_data_is_refused_in_one_line() -> None:
    work = nets.task(nets.make(nets.Mlp))
    empty = work.data.train.take(slice(0, 0))
    work = replace(work, data=replace(work.data, train=empty, calibration=empty))
    action = UnstructuredPruning(strength=0.4, criterion="obd")
    with pytest.raises(CannotCompress, match="criterion obd needs training data; give some or use magnitude"):
        PRUNER.apply(work.model, action, replace(nets.context(nets.task(nets.make(nets.Mlp))), task=work))


def test_replay_changes_nothing_and_takes_the_weights() -> None:
    result = prune(strength=0.4)
    fresh = PRUNER.replay(nets.make(nets.Mlp, seed=9), json.loads(json.dumps(result.record)), nets.images(2))
    fresh.load_state_dict(result.model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(nets.images(3)), result.model(nets.images(3)))
