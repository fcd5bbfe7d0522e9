from __future__ import annotations

from typing import Literal, get_args

import nets
import pytest
import torch

from easycompress.codes.codebook import Codebook
from easycompress.lc.cstep import by_parameter, c_step
from easycompress.lc.papers import storage_bits
from easycompress.lc.schemes import share_for, tasks_for
from easycompress.lc.settings import MOST_BITS, EntropyQuantization, LearningCompression, Scheme, bits_at
from easycompress.lc.tasks import parse_tasks, weights_of
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.selection.probe import losses
from easycompress.selection.trees.lc import SCHEMES


def bits_per_weight(scheme: Scheme, bits: float) -> float:
    model = nets.make(nets.Mlp)
    names = weights_of(model)
    tasks = parse_tasks(model, tasks_for(scheme, model, bits))
    codes = by_parameter(tasks, c_step(tasks, {name: model.get_parameter(name) for name in names}, 1.0))
    assert set(codes) == set(names)
    entries = sum(32 * len(code.entries) for code in codes.values() if isinstance(code, Codebook))
    count = sum(model.get_parameter(name).numel() for name in names)
    return (sum(storage_bits(code) for code in codes.values()) - entries) / count


@pytest.mark.parametrize("scheme", [s for s in get_args(Scheme) if s != "entropy"])
def test_a_scheme_takes_about_the_bits_that_it_is_given(scheme: Scheme) -> None:
    few, many = bits_per_weight(scheme, 3.0), bits_per_weight(scheme, 6.0)
    assert few < many
    assert 2.0 <= few <= 4.0


def test_strengths_run_from_eight_bits_to_a_sixteenth() -> None:
    assert bits_at(0.0) == MOST_BITS == 8
    assert bits_at(1.0) == 0.0625
    assert bits_at(0.5) == pytest.approx(0.7071, abs=1e-4)


def test_the_share_of_nonzeros_pays_for_their_gaps() -> None:
    for bits in (0.1, 0.5, 2.0):
        share = share_for(bits)
        assert 0 < share * 16 < bits
    assert share_for(100.0) == 1.0


def test_the_dial_words_and_hooks() -> None:
    assert LearningCompression().amount(1.0) == "0.0625 bits a weight"
    action = EntropyQuantization(strength=0.5, method="feedback")
    assert [variant.method for variant in action.variants()] == ["feedback", "nearest"]
    untrained = action.untrained()
    assert untrained is not None
    assert untrained.method == "nearest"


def test_the_method_with_feedback_takes_the_same_bits() -> None:
    work = nets.task(nets.make(nets.Mlp))
    lengths = []
    for method in ("nearest", "feedback"):
        action = EntropyQuantization.model_validate({"strength": 0.3, "method": method})
        applied = EntropyQuantizer().apply(nets.make(nets.Mlp), action, nets.context(work))
        lengths.append(sum(code.bits() for code in applied.codes.values()))
    assert lengths[1] == pytest.approx(lengths[0], rel=0.25)


def test_the_probe_compares_what_becomes_small_enough() -> None:
    work = nets.task(nets.make(nets.LeNet))
    profile = nets.context(work).profile
    dense = 4.0 * profile.params
    found = losses(work, profile, dense / 2, packed=True)
    assert set(found) <= set(SCHEMES)
    assert "entropy" in found
    assert all(loss > 0 for loss in found.values())
    assert losses(work, profile, 10.0, packed=True) == {}


@pytest.mark.parametrize("bits", [1.0, 3.0])
def test_priced_ranks_cost_no_more_and_lose_less_than_even_ones(bits: float) -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        model.get_parameter(weights_of(model)[-1]).mul_(5)  # what a layer is worth isn't told by its size

    def made(ranks: Literal["even", "priced"]) -> tuple[float, float]:
        names = weights_of(model)
        weights = {name: model.get_parameter(name).detach() for name in names}
        tasks = parse_tasks(model, tasks_for("low-rank", model, bits, ranks))
        codes = by_parameter(tasks, c_step(tasks, weights, 1.0))
        lost = sum(float(((weights[name] - code.dense()) ** 2).sum()) for name, code in codes.items())
        return sum(storage_bits(code) for code in codes.values()), lost

    count = sum(model.get_parameter(name).numel() for name in weights_of(model))
    (_, even), (stored, priced) = made("even"), made("priced")
    least = sum(16 * sum(model.get_parameter(name).shape) for name in weights_of(model))  # rank 1 of each
    assert stored <= max(bits * count, least)
    assert priced <= even
