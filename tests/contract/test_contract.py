"""What every technique promises. A new one inherits these tests by standing in TECHNIQUES."""

from __future__ import annotations

import copy
import functools
import json
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import nets
import pytest
import torch
import yaml

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.codes.reading import read_code
from easycompress.core.errors import BadInput
from easycompress.core.plan import Action
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.technique import Need
from easycompress.techniques import TECHNIQUES, parse_action, technique_for, technique_named

if TYPE_CHECKING:
    from torch import nn

    from easycompress.technique import Applied, Technique

STRENGTH = 0.4

EPOCHS = 8
"""Enough for the untrained net to become a better one, so that training that keeps the better weights keeps its own."""

every_technique = pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.name)


def home(technique: Technique[Any]) -> type[nn.Module]:
    """Return an ordinary net of the kind that the technique is for."""
    special = {"transformer-pruning": nets.Attentive, "depth-pruning": nets.Tower}
    return special.get(technique.name, nets.BatchNormed)


def plain(technique: Technique[Any]) -> dict[str, Any]:
    return {"strength": STRENGTH} if "strength" in technique.settings.model_fields else {}


def variants(technique: Technique[Any]) -> list[Action]:
    """Return the default action, and one for every other choice of every setting."""
    found = [technique.settings(**plain(technique))]
    for name, field in technique.settings.model_fields.items():
        choices: tuple[Any, ...] = ()
        if field.annotation is bool:
            choices = (True, False)
        elif get_origin(field.annotation) is Literal:
            choices = get_args(field.annotation)
        found.extend(technique.settings(**(plain(technique) | {name: choice})) for choice in choices)
    return list(dict.fromkeys(found))


@functools.cache
def facts_of(net: type[nn.Module]) -> ModelProfile:
    return nets.context(nets.task(nets.make(net))).profile


def suitable(technique: Technique[Any]) -> list[Action]:
    """Return the variants that the technique's home net permits; the default is always among them."""
    default, *others = variants(technique)
    facts = facts_of(home(technique))
    return [default, *(action for action in others if technique.refuses(facts, action) is None and not timed(action))]


def timed(action: Action) -> bool:
    """Tell whether the clock decides what an action does: on a tiny net, now this and now that."""
    return getattr(action, "gain", "") == "latency"


def apply(technique: Technique[Any], action: Action) -> Applied:
    work = nets.task(nets.make(home(technique)))
    torch.manual_seed(torch.seed())  # results may depend on the context's seed alone
    return technique.apply(copy.deepcopy(work.model), action, nets.training_context(work, EPOCHS))


@functools.cache
def applied(technique: Technique[Any]) -> Applied:
    return apply(technique, technique.settings(**plain(technique)))


@every_technique
def test_it_introduces_itself(technique: Technique[Any]) -> None:
    assert technique.settings.model_fields["kind"].default == technique.name
    assert technique.source
    assert technique.needs <= set(get_args(Need))
    assert technique_named(technique.name) is technique
    assert all(technique_for(action) is technique for action in variants(technique))


def test_names_and_settings_are_unique() -> None:
    assert len({t.name for t in TECHNIQUES}) == len(TECHNIQUES)
    assert len({t.settings for t in TECHNIQUES}) == len(TECHNIQUES)


@every_technique
def test_settings_round_trip_through_yaml(technique: Technique[Any]) -> None:
    for action in variants(technique):
        text = yaml.safe_dump(action.model_dump())
        assert parse_action(yaml.safe_load(text)) == action
        assert "\n" not in action.describe()


@every_technique
def test_unknown_settings_are_named(technique: Technique[Any]) -> None:
    with pytest.raises(BadInput, match=f"recipe: {technique.name}: nonsense: "):
        parse_action({"kind": technique.name, "nonsense": 1})


def test_unknown_kinds_are_told_what_there_is() -> None:
    with pytest.raises(BadInput, match=r"action 'magic': no such technique; there are structured-pruning, "):
        parse_action({"kind": "magic"})


@every_technique
def test_every_setting_is_read(technique: Technique[Any]) -> None:
    read: set[str] = set()

    class Recorder(technique.settings):  # type: ignore[misc, name-defined]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    result = apply(technique, Recorder(**plain(technique)))
    if result.file_pass is not None:
        result.file_pass(export(result.model, nets.images(2)))
    if "strength" in technique.settings.model_fields:  # what only the search of a dial reads
        Recorder(strength=None).at(STRENGTH)
    assert set(technique.settings.model_fields) - {"kind"} <= read


@every_technique
def test_the_tasks_model_stays_as_it_was(technique: Technique[Any]) -> None:
    work = nets.task(nets.make(home(technique)))
    before = nets.state(work.model)
    technique.apply(copy.deepcopy(work.model), technique.settings(**plain(technique)), nets.training_context(work))
    assert nets.same_state(work.model.state_dict(), before)
    assert not any(module.training for module in work.model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in work.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in work.model.modules())


@every_technique
def test_something_changes(technique: Technique[Any]) -> None:
    before = nets.make(home(technique)).state_dict()
    assert not nets.same_state(applied(technique).model.state_dict(), before)


@every_technique
def test_no_more_is_trained_than_the_context_allows(technique: Technique[Any]) -> None:
    result = applied(technique)
    assert result.epochs <= EPOCHS
    work = nets.task(nets.make(home(technique)))
    untrained = technique.apply(copy.deepcopy(work.model), technique.settings(**plain(technique)), nets.context(work))
    assert untrained.epochs == 0


every_choice = pytest.mark.parametrize(
    ("technique", "action"),
    [(technique, action) for technique in TECHNIQUES for action in suitable(technique)],
    ids=lambda value: value.describe() if isinstance(value, Action) else value.name,
)


@every_choice
def test_every_choice_of_every_setting_keeps_the_contract(technique: Technique[Any], action: Action) -> None:
    result = apply(technique, action)
    assert_replayed(technique, result)
    assert_stands_for_parameters(result)


@every_technique
def test_replay_rebuilds_the_module(technique: Technique[Any]) -> None:
    assert_replayed(technique, applied(technique))


def assert_replayed(technique: Technique[Any], result: Applied) -> None:
    record = json.loads(json.dumps(result.record, allow_nan=False))
    fresh = nets.make(home(technique), seed=9)
    rebuilt = technique.replay(fresh, record, torch.zeros(2, *nets.SHAPE))
    rebuilt.load_state_dict(result.model.state_dict())
    inputs = nets.images(5)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(inputs), result.model(inputs))


@every_technique
def test_codes_stand_for_the_parameters(technique: Technique[Any]) -> None:
    assert_stands_for_parameters(applied(technique))


def assert_stands_for_parameters(result: Applied) -> None:
    parameters = dict(result.model.named_parameters())
    assert result.codes.keys() <= parameters.keys()
    for name, code in result.codes.items():
        assert torch.equal(code.dense(), parameters[name])
        assert code.bits() == 8 * sum(a.numel() * a.element_size() for a in code.arrays().values())
        assert torch.equal(
            read_code(code.form, json.loads(json.dumps(code.meta())), code.arrays()).dense(), code.dense()
        )


@every_technique
def test_the_same_seed_gives_the_same_result(technique: Technique[Any]) -> None:
    first, second = applied(technique), apply(technique, technique.settings(**plain(technique)))
    assert nets.same_state(first.model.state_dict(), second.model.state_dict())
    assert first.record == second.record
    files = []
    for result in (first, second):
        graph = export(result.model, nets.images(2))
        files.append(slim(result.file_pass(graph) if result.file_pass is not None else graph).SerializeToString())
    assert files[0] == files[1]


def layer(family: Literal["convolutional", "linear", "attention", "other"]) -> LayerProfile:
    return LayerProfile(name=family, type=family, family=family, params=10, macs=10)


def facts(*layers: LayerProfile, outputs: int = 10) -> ModelProfile:
    return ModelProfile(
        architecture="other",
        layers=layers,
        params=10 * len(layers),
        macs=10 * len(layers),
        has_batch_norm=False,
        input_shape=nets.SHAPE,
        outputs=outputs,
    )


@every_technique
@pytest.mark.parametrize(
    "profile",
    [
        facts(),
        facts(layer("other")),
        facts(layer("linear")),
        facts(layer("convolutional"), layer("linear")),
        facts(layer("attention")),
        facts(layer("linear"), outputs=1),
    ],
)
def test_refusals_are_one_line(technique: Technique[Any], profile: ModelProfile) -> None:
    for action in variants(technique):
        refusal = technique.refuses(profile, action)
        assert refusal is None or (refusal and "\n" not in refusal and len(refusal) < 200)


@every_technique
def test_an_ordinary_net_is_not_refused(technique: Technique[Any]) -> None:
    facts = facts_of(home(technique))
    default, *others = variants(technique)
    assert technique.refuses(facts, default) is None
    refusals = [refusal for action in others if (refusal := technique.refuses(facts, action)) is not None]
    assert all("\n" not in refusal and refusal for refusal in refusals)
    assert len(refusals) <= 1
