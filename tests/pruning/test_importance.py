from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.core.errors import CannotCompress
from easycompress.core.task import Split
from easycompress.pruning.graph import ChannelGroup, PruningGraph
from easycompress.pruning.importance import Evidence, saliency, scored

FEW = nets.digits().train.take(slice(0, 64))


def groups(model: nn.Module, importance: str, evidence: Evidence | None = None) -> dict[str, ChannelGroup]:
    found = PruningGraph(model, nets.images(2)).groups("global", importance, evidence)  # type: ignore[arg-type]
    return {group.root: group for group in found}


def weights(model: nn.Module) -> tuple[Tensor, Tensor]:
    return model.get_parameter("hidden1.weight").detach(), model.get_parameter("hidden2.weight").detach()


def relative(raw: Tensor) -> Tensor:
    return raw / raw.mean()


@pytest.mark.parametrize("importance", ["random", "l1", "l2", "group-norm", "bn-scale", "taylor"])
def test_scores_are_relative_to_their_group(importance: str) -> None:
    model = nets.make(nets.Residual)
    evidence = Evidence(1, saliency(model, FEW, nets.task(model).loss))
    for group in groups(model, importance, evidence).values():
        assert group.scores.shape == (group.width,)
        assert float(group.scores.mean()) == pytest.approx(1, abs=1e-5)
        assert not group.scores.requires_grad


def test_norms_by_hand() -> None:
    model = nets.make(nets.Mlp)
    made, read = weights(model)
    squares = made.square().sum(1) + read.square().sum(0)
    assert torch.allclose(groups(model, "l1")["hidden1"].scores, relative(made.abs().sum(1) + read.abs().sum(0)))
    assert torch.allclose(groups(model, "l2")["hidden1"].scores, relative(squares.sqrt()))
    assert torch.allclose(groups(model, "group-norm")["hidden1"].scores, relative(squares))


def test_lamp_by_its_definition() -> None:
    model = nets.make(nets.Mlp)
    made, read = weights(model)
    squares = made.square().sum(1) + read.square().sum(0)
    expected = torch.stack([u / squares[squares >= u].sum() for u in squares])
    scores = groups(model, "lamp")["hidden1"].scores
    assert torch.allclose(scores, expected)
    assert float(scores.max()) == pytest.approx(1)  # unnormalised: the best channel of every group scores 1


def test_lamp_of_dead_channels_is_zero() -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(group.scores, torch.zeros(group.width)) for group in groups(model, "lamp").values())


def test_batch_norm_scales_rank_the_channels() -> None:
    model = nets.make(nets.BatchNormed)
    gammas = model.get_parameter("features.1.weight")
    with torch.no_grad():
        gammas[3] *= -1  # the sign doesn't matter
    assert torch.allclose(groups(model, "bn-scale")["features.0"].scores, relative(gammas.detach().abs()))


def test_a_group_without_batch_norm_falls_back_to_its_norm() -> None:
    model = nets.make(nets.Mlp)
    by_scale, by_norm = groups(model, "bn-scale"), groups(model, "group-norm")
    assert all(torch.equal(by_scale[root].scores, by_norm[root].scores) for root in by_norm)


def test_a_shortcut_averages_the_scales_of_all_its_norms() -> None:
    model = nets.make(nets.Residual)
    trunk = (model.get_parameter("bn.weight") + model.get_parameter("identity.bn2.weight")).detach() / 2
    assert torch.allclose(groups(model, "bn-scale")["stem"].scores, relative(trunk), atol=1e-6)


def test_random_scores_come_from_the_seed() -> None:
    model = nets.make(nets.LeNet)
    first, again, other = (groups(model, "random", Evidence(seed)) for seed in (4, 4, 5))
    assert torch.equal(first["conv1"].scores, again["conv1"].scores)
    assert not torch.equal(first["conv1"].scores, other["conv1"].scores)
    assert not torch.equal(first["fc1"].scores[:6], first["conv1"].scores)


def test_flattened_maps_count_for_their_channel() -> None:
    model = nets.make(nets.Flattened)
    read = model.get_parameter("fc.weight").detach().abs().reshape(nets.CLASSES, 6, 16).sum((0, 2))
    made = model.get_parameter("conv.weight").detach().abs().flatten(1).sum(1)
    assert torch.allclose(groups(model, "l1")["conv"].scores, relative(made + read))


def test_saliency_is_the_magnitude_of_weight_times_gradient() -> None:
    model, work = nets.make(nets.Mlp), nets.task(nets.make(nets.Mlp))
    one_batch = FEW.take(slice(0, 32))
    found = saliency(model, one_batch, work.loss)
    assert one_batch.targets is not None
    work.loss(model(one_batch.inputs), one_batch.targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(found[name], (parameter * parameter.grad).abs(), atol=1e-7)


def test_saliency_leaves_the_model_alone() -> None:
    model = nets.make(nets.BatchNormed)
    model.get_submodule("hidden").requires_grad_(False)  # noqa: FBT003 - torch's own signature
    before = nets.state(model)
    saliency(model, FEW, nets.task(model).loss)
    assert nets.same_state(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {"hidden.weight", "hidden.bias"}


def test_taylor_spares_what_the_loss_feels() -> None:
    """A channel with large weights that nobody can hear, behind a dead activation, is the least important."""
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        model.get_parameter("hidden2.weight")[5] *= 10
        model.get_parameter("hidden2.bias")[5] = -1e4
    evidence = Evidence(0, saliency(model, FEW, nets.task(model).loss))
    assert int(groups(model, "taylor", evidence)["hidden2"].scores.argmin()) == 5
    assert int(groups(model, "l1")["hidden2"].scores.argmin()) != 5


def test_without_labels_the_own_predictions_stand_for_them() -> None:
    model = nets.make(nets.Mlp)
    found = saliency(model, Split(FEW.inputs, None), nets.task(model).loss)
    assert float(found["hidden1.weight"].sum()) > 0


def test_taylor_needs_samples() -> None:
    with pytest.raises(CannotCompress, match=r"^structured pruning: importance taylor needs training samples; choose"):
        saliency(nets.make(nets.Mlp), FEW.take(slice(0, 0)), nets.task(nets.make(nets.Mlp)).loss)


def test_scoring_changes_nothing_but_the_scores() -> None:
    group = groups(nets.make(nets.LeNet), "l1")["conv1"]
    again = scored([group], "l2", Evidence())[0]
    assert dataclasses.replace(again, scores=group.scores) == group
