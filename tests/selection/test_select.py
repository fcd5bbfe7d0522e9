from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import easycompress.selection.trees.quantization as quantization_module
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.profile import Architecture, Family, LayerProfile, ModelProfile
from easycompress.distillation.settings import Distillation
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.lc.settings import EntropyQuantization, LearningCompression, TunedQuantization
from easycompress.pruning.depth.settings import DepthPruning
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.settings import DynamicInt8, Float16, StaticInt8, WeightOnly
from easycompress.selection.explain import explain, rules
from easycompress.selection.heuristics import Heuristics
from easycompress.selection.select import (
    SPARSITY,
    WIDTH_FROM,
    channels_in_question,
    chooses_codes,
    integers_in_question,
    select,
    structures,
)
from easycompress.selection.trees.lc import INTEGERS_SUFFICE
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from easycompress.core.plan import Action, Plan

TYPES = {"convolutional": "Conv2d", "linear": "Linear", "attention": "MultiheadAttention", "other": "GRU"}


def model(
    architecture: Architecture, *families: Family, batch_norm: bool = False, other: str = TYPES["other"]
) -> ModelProfile:
    types = TYPES | {"other": other}
    rows = tuple(
        LayerProfile(name=str(i), type=types[family], family=family, params=1000, macs=1000)
        for i, family in enumerate(families)
    )
    return ModelProfile(
        architecture=architecture,
        layers=rows,
        params=1000 * len(rows),
        macs=1000 * len(rows),
        has_batch_norm=batch_norm,
        input_shape=(3, 32, 32),
        outputs=10,
    )


CNN = model("cnn", *["convolutional"] * 9, "linear", batch_norm=True)
TRANSFORMER = model("transformer", *["attention"] * 9, "linear", "linear")
FEED_FORWARD = model("transformer", "attention", *["linear"] * 9)
MIXED = model("transformer", *["attention", "linear"] * 5)
LOGISTIC = model("fnn", "linear")


def make(profile: ModelProfile = CNN, **changes: Any) -> Heuristics:
    facts: dict[str, Any] = {
        "profile": profile,
        "metric": "accuracy",
        "accuracy_like": True,
        "objective": "size",
        "ratio_needed": 10.0,
        "points": 1.0,
        "resources": "ample",
        "epochs_affordable": 20.0,
        "backend": "cpu",
        "labelled": True,
        "class_scores": True,
        "train_samples": 10_000,
        "calibration_samples": 1_024,
        "natural_images": False,
        "augmented": False,
        "packed": False,
    }
    return Heuristics(**{**facts, **changes})


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def pruning(plan: Plan) -> StructuredPruning:
    return next(step for step in plan.steps if isinstance(step, StructuredPruning))


def rules_asked(plan: Plan) -> list[str]:
    return [decision.rule for decision in plan.decisions]


def test_size_takes_all_three_steps() -> None:
    plan = select(make())
    assert plan.steps == (
        StructuredPruning(
            strategy="convolutional", importance="bn-scale", sparsity=SPARSITY, ratios="sensitivity", saves="params"
        ),
        Distillation(technique="combined"),
        StaticInt8(samples=512),
    )
    assert plan.quick == ()
    asked = "L1 L2 L4 L3 L5 L8 Q1 Q2 Q4 Q6 Q7 S1 S2 S3 T1 P1 P2 P3 D1 D2 D3 D4 D5 D6 D7"
    assert rules_asked(plan) == asked.split()
    assert "int8 brings at most 4x of the 10x; pruning must bring about 2.5x: about 37% of the channels" in plan.notes


def test_nothing_is_guessed_that_can_be_measured() -> None:
    assert pruning(select(make())).strength is None


@pytest.mark.parametrize(("objective", "width"), [("size", 1), ("compute", 1), ("latency", 16), ("energy", 16)])
def test_widths_suit_the_runtime_when_time_counts(objective: str, width: int) -> None:
    assert pruning(select(make(objective=objective))).round_to == width


def test_compute_has_no_use_for_integers() -> None:
    plan = select(make(objective="compute", ratio_needed=4.0))
    assert kinds(plan) == ["structured-pruning", "distillation"]
    assert "nothing but pruning lowers compute here: it must bring about 4x: about 50% of the channels" in plan.notes


def test_latency_promises_nothing() -> None:
    note = select(make(objective="latency", ratio_needed=4.0)).notes
    assert (
        "how much latency pruning and int8 can save is measured on this machine, not assumed; "
        "without int8, pruning would have to bring about 4x: about 50% of the channels"
    ) in note
    assert (
        "how much latency pruning can save is measured on this machine, not assumed; "
        "pruning has to bring about 4x: about 50% of the channels"
    ) in select(make(objective="latency", ratio_needed=4.0, backend="gpu")).notes
    assert (
        "how much latency pruning can save is measured on this machine, not assumed"
        in select(make(objective="latency", ratio_needed=math.inf, backend="gpu")).notes
    )


def test_no_budget_means_no_training() -> None:
    plan = select(make(resources="none", epochs_affordable=0.0, ratio_needed=3.0))
    assert kinds(plan) == ["structured-pruning", "static-int8"]
    assert pruning(plan).steps == 1
    assert "nothing is trained, so pruning must keep the floor without any recovery" in plan.notes
    assert pruning(select(make())).steps > 1


def test_without_training_data_nothing_is_recovered() -> None:
    plan = select(make(train_samples=0, ratio_needed=3.0))
    assert kinds(plan) == ["structured-pruning", "static-int8"]
    assert pruning(plan).steps == 1


def test_few_training_samples_are_all_used_to_calibrate() -> None:
    assert select(make(calibration_samples=90)).steps[-1] == StaticInt8(samples=90)


def test_a_target_that_int8_reaches_alone() -> None:
    text = "int8 brings at most 4x and 3x is needed: pruning is left out if the written file shows that int8 suffices"
    plan = select(make(ratio_needed=3.0))
    assert text in plan.notes
    assert kinds(plan) == ["structured-pruning", "distillation", "static-int8"]


def test_bits_alone_where_they_reach_the_target() -> None:
    plan = select(make(LINEAR, ratio_needed=4.5))
    assert kinds(plan) == ["weight-only"]
    assert plan.notes[0] == "4.5x is left to 4-bit storage, which brings at most 6x: nothing has to be pruned"
    assert plan.last == (UNTRAINED,)
    assert not {rule for rule in rules_asked(plan) if rule[0] in "TPD"}
    assert kinds(select(make(LINEAR, ratio_needed=3.0))) == ["structured-pruning", "distillation", "weight-only"]


def test_the_most_within_the_floor() -> None:
    plan = select(make(objective="compute", ratio_needed=math.inf))
    assert "the most within the floor is sought: how far pruning can go is measured" in plan.notes
    plan = select(make(ratio_needed=math.inf))
    assert (kinds(plan), [step.kind for step in plan.quick]) == (["lc"], ["entropy-quantization"])
    assert plan.notes[0].startswith("the least on average, ")


def harmful(static: float, dynamic: float | None = None) -> dict[str, Any]:
    """Return what is known where integers with static, and with dynamic, ranges lose that many points."""
    tried = [("static-int8", static)] + ([("dynamic-int8", dynamic)] if dynamic is not None else [])
    return {"integer_losses": tuple(tried)}


LINEAR = model("fnn", "linear", "linear")


@pytest.mark.parametrize(
    ("heuristics", "action"),
    [
        (make(), StaticInt8(samples=512)),
        (make(**harmful(0.5)), StaticInt8(samples=512)),
        (make(**harmful(0.51)), QatInt8(samples=512, technique="combined")),
        (make(**harmful(0.51), labelled=False), QatInt8(samples=512, technique="soft")),
        (make(**harmful(9.0), resources="limited", epochs_affordable=2.0), StaticInt8(samples=512)),
        (make(backend="gpu"), Float16()),
        (make(LINEAR, ratio_needed=4.5), WeightOnly(bits=4, strength=None)),
        (make(LINEAR, ratio_needed=3.0), WeightOnly(bits=8)),
        (make(LINEAR, calibration_samples=0), DynamicInt8()),
        (make(LINEAR, points=1.0), DynamicInt8()),
        (make(LINEAR, points=3.0), StaticInt8(samples=512)),
        (make(LINEAR, **harmful(0.3, 0.4)), StaticInt8(samples=512)),
        (make(LINEAR, **harmful(0.4, 0.3), points=3.0), DynamicInt8()),
        (make(LINEAR, **harmful(0.3, 0.3)), DynamicInt8()),
        (make(LINEAR, **harmful(9.0, math.inf), calibration_samples=70), QatInt8(samples=70, technique="soft")),
        (make(LINEAR, **harmful(9.0, 9.0), resources="limited", epochs_affordable=2.0), DynamicInt8()),
        (make(LINEAR, **harmful(9.0, 9.0), resources="none", points=3.0, objective="latency"), StaticInt8()),
    ],
)
def test_integers(heuristics: Heuristics, action: Action) -> None:
    plan = select(heuristics)
    assert plan.steps[-1] == action
    assert technique_for(action).refuses(heuristics.profile, action) is None


def test_integers_of_values_are_trained_on_the_tasks_loss() -> None:
    single = LINEAR.model_copy(update={"outputs": 1})
    plan = select(make(single, **harmful(9.0, 9.0), class_scores=False, accuracy_like=False, metric="mse"))
    assert plan.steps[1:] == (
        Distillation(technique="combined", outputs="values"),
        QatInt8(samples=512, technique="hard"),  # values have no softmax, and one output is no choice
    )
    assert [technique_for(step).refuses(single, step) for step in plan.steps] == [None, None, None]


@pytest.mark.parametrize(
    ("heuristics", "action"),
    [
        (make(resources="none", ratio_needed=3.0), {"importance": "bn-scale", "sparsity": None, "steps": 1}),
        (make(resources="limited"), {"importance": "bn-scale", "sparsity": None, "steps": 3}),
        (make(calibration_samples=0), {"ratios": "global", "saves": "channels"}),
        (make(objective="compute", ratio_needed=2.0), {"ratios": "sensitivity", "saves": "macs", "round_to": 1}),
        (make(objective="energy", ratio_needed=2.0), {"saves": "macs", "round_to": 16}),
        (make(LINEAR), {"strategy": "linear", "importance": "l1"}),
        (make(objective="compute", ratio_needed=math.inf), {"strategy": "global", "importance": "lamp"}),
        (make(model("cnn", *["convolutional"] * 9, "linear")), {"importance": "group-norm", "sparsity": None}),
    ],
)
def test_channels(heuristics: Heuristics, action: dict[str, Any]) -> None:
    chosen = pruning(select(heuristics))
    assert {name: getattr(chosen, name) for name in action} == action


@pytest.mark.parametrize(
    ("profile", "ratio", "part"),
    [(TRANSFORMER, 6.0, "attention"), (FEED_FORWARD, 6.0, "feed-forward"), (MIXED, 7.9, "both")],
)
def test_transformers_lose_heads_and_neurons(profile: ModelProfile, ratio: float, part: str) -> None:
    heuristics = make(profile, ratio_needed=ratio)
    assert select(heuristics).steps[0] == TransformerPruning.model_validate({"part": part, "importance": "taylor"})
    blind = select(heuristics.model_copy(update={"train_samples": 0, "ratio_needed": 3.5}))
    assert isinstance(blind.steps[0], TransformerPruning)
    assert (blind.steps[0].importance, blind.steps[0].steps) == ("norm", 1)


@pytest.mark.parametrize("objective", ["compute", "energy", "latency"])
def test_low_rank_where_it_loses_less(objective: str) -> None:
    losses = (("channels", 0.4), ("ranks", 0.3))
    plan = select(make(objective=objective, ratio_needed=2.0, structure_losses=losses))
    gain, width = ("latency", 16) if objective == "latency" else ("compute", 1)
    assert plan.steps[0] == LowRankLayers.model_validate({"gain": gain, "round_to": width})
    assert kinds(plan)[1] == "distillation"
    assert "P1" not in rules_asked(plan)  # nothing ranks channels
    equal = select(make(objective=objective, ratio_needed=2.0, structure_losses=(("channels", 0.3), ("ranks", 0.3))))
    assert pruning(equal).strength is None
    note = "nothing but low rank lowers compute here: it must bring about 2x"
    assert (note in plan.notes) is (objective == "compute")


@pytest.mark.parametrize("objective", ["compute", "energy"])
@pytest.mark.parametrize("best", ["channels", "ranks"])
def test_what_loses_less_below_the_target_goes_on_there(objective: str, best: str) -> None:
    at, below = (
        (("channels", float(way != "channels")), ("ranks", float(way != "ranks"))) for way in ("channels", best)
    )
    plan = select(make(objective=objective, ratio_needed=9.0, structure_losses=at, lesser_losses=below))
    assert pruning(plan).strength is None
    assert "T5" in rules_asked(plan)
    if best == "channels":
        assert plan.lesser == ()
        return
    assert [step.kind for step in plan.lesser] == ["low-rank-layers", *kinds(plan)[1:]]
    assert plan.lesser[1:] == plan.steps[1:]
    assert "where that misses the target, low-rank-layers goes on below it: it loses less there" in plan.notes


def test_channels_that_go_on_below_are_ranked_by_the_trees() -> None:
    ranks, channels_ = (
        (("channels", float(way != "channels")), ("ranks", float(way != "ranks"))) for way in ("ranks", "channels")
    )
    plan = select(make(objective="compute", ratio_needed=9.0, structure_losses=ranks, lesser_losses=channels_))
    assert [step.kind for step in plan.steps[:1] + plan.lesser[:1]] == ["low-rank-layers", "structured-pruning"]
    asked = rules_asked(plan)
    assert asked.index("T5") < asked.index("P1")


@pytest.mark.parametrize("below", [(), (("ranks", 0.1),)])
def test_without_two_ways_below_the_target_nothing_is_asked(below: tuple[tuple[str, float], ...]) -> None:
    plan = select(make(objective="compute", ratio_needed=9.0, lesser_losses=below))
    assert plan.lesser == ()
    assert "T5" not in rules_asked(plan)


def test_what_is_faster_goes_before_what_loses_less() -> None:
    losses = (("channels", 0.4), ("ranks", 0.3))
    plan = select(
        make(
            objective="latency",
            ratio_needed=3.0,
            structure_losses=losses,
            structure_speeds=(("channels", 3.0), ("ranks", 2.6)),
        )
    )
    assert pruning(plan).round_to == 16
    assert "T4" in rules_asked(plan)
    assert "T2" not in rules_asked(plan)


def test_blocks_go_before_widths_where_time_counts() -> None:
    plan = select(make(objective="latency", ratio_needed=3.0, blocks=7, structure_losses=(("ranks", 0.1),)))
    depth, narrower = plan.steps[:2]
    assert isinstance(depth, DepthPruning)
    assert isinstance(narrower, StructuredPruning)
    assert (narrower.start, narrower.round_to) == (WIDTH_FROM, 16)
    assert (depth.blocks(1.0, 7), depth.blocks(WIDTH_FROM, 7)) == (4, 2)
    assert "T2" not in rules_asked(plan)
    assert not any(isinstance(step, DepthPruning) for step in select(make(objective="energy", blocks=7)).steps)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"objective": "compute"}, {"channels", "ranks"}),
        ({"objective": "energy"}, {"channels", "ranks"}),
        ({"objective": "latency"}, {"channels", "ranks"}),
        ({"objective": "latency", "blocks": 3}, set()),
        ({"objective": "size"}, set()),
        ({"objective": "compute", "profile": LOGISTIC}, set()),
    ],
)
def test_what_is_worth_comparing(changes: dict[str, Any], names: set[str]) -> None:
    heuristics = make(ratio_needed=2.0, **changes)
    compared = structures(heuristics)
    assert set(compared) == names
    for name, action in compared.items():
        losses = tuple((other, float(other != name)) for other in compared)
        assert action in select(heuristics.model_copy(update={"structure_losses": losses})).steps


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, {"static-int8"}),
        ({"objective": "latency"}, {"static-int8"}),
        ({"resources": "limited", "epochs_affordable": 2.0}, set()),  # either way static
        ({"profile": LINEAR}, {"static-int8", "dynamic-int8"}),
        ({"profile": LINEAR, "resources": "limited", "epochs_affordable": 2.0}, {"static-int8", "dynamic-int8"}),
        ({"calibration_samples": 0}, set()),
        ({"objective": "compute"}, set()),
        ({"backend": "gpu"}, set()),
        ({"ratio_needed": 40.0}, set()),  # codes
        ({"profile": LINEAR, "ratio_needed": 4.5}, set()),  # 4 bits
    ],
)
def test_integers_are_tried_where_the_answer_matters(changes: dict[str, Any], names: set[str]) -> None:
    heuristics = make(**changes)
    kinds = {"static-int8": StaticInt8(samples=512), "dynamic-int8": DynamicInt8()}
    assert integers_in_question(heuristics) == {name: kinds[name] for name in kinds if name in names}
    losses = ((0.0, 99.0), (99.0, 0.0), (99.0, 99.0))
    plans = {select(heuristics.model_copy(update=harmful(*loss))).steps for loss in losses}
    assert (len(plans) > 1) is bool(names)


@pytest.mark.parametrize(
    ("natural", "augmented", "resources", "told"),
    [
        (True, False, "ample", True),
        (True, True, "ample", False),
        (False, False, "ample", False),
        (True, False, "none", False),
    ],
)
@pytest.mark.parametrize("needed", [3.0, 10.0, 30.0])
def test_augmentation_is_suggested(
    *, natural: bool, augmented: bool, resources: str, told: bool, needed: float
) -> None:
    plan = select(make(natural_images=natural, augmented=augmented, resources=resources, ratio_needed=needed))
    assert any("--augment flip-crop" in note for note in plan.notes) is told


TRAINED = LearningCompression()
UNTRAINED = EntropyQuantization()


@pytest.mark.parametrize("changes", [{"ratio_needed": 12.5}, {"ratio_needed": math.inf}, {"backend": "gpu"}])
def test_much_smaller_files_are_learned_after_a_quick_try(changes: dict[str, Any]) -> None:
    plan = select(make(**({"ratio_needed": 40.0} | changes)))
    assert (plan.quick, plan.steps) == ((UNTRAINED,), (TRAINED,))
    assert rules_asked(plan) == ["L1", "L2", "L4", "L3", "L5", "L7", "L6"]
    assert chooses_codes(make(**({"ratio_needed": 40.0} | changes)))
    assert "the training-free quantization goes first; where it meets the goal nothing is trained" in plan.notes


@pytest.mark.parametrize("changes", [{"ratio_needed": 40.0}, {"ratio_needed": 5.0, "packed": True}])
def test_a_transformer_trains_the_values_of_its_levels(changes: dict[str, Any]) -> None:
    facts = make(LINEAR.model_copy(update={"architecture": "transformer"}), **changes)
    plan = select(facts)
    biases = "8-bit" if facts.packed else "float"
    assert plan.quick == (EntropyQuantization.model_validate({"biases": biases}),)
    assert plan.steps == (TunedQuantization.model_validate({"biases": biases}),)
    assert rules_asked(plan)[-1] == "L7"
    assert not chooses_codes(facts)  # nothing is tried on copies: it would change nothing
    assert select(facts.model_copy(update={"class_scores": False})).steps[0] == plan.steps[0].model_copy(
        update={"technique": "hard"}
    )


@pytest.mark.parametrize("needed", [3.8, 1.0])
@pytest.mark.parametrize("resources", ["none", "ample"])
def test_what_integers_reach_is_left_to_them(needed: float, resources: str) -> None:
    plan = select(make(ratio_needed=needed, resources=resources))
    assert plan.quick == ()
    assert kinds(plan)[-1] == "static-int8"
    assert plan.last == ()
    assert rules_asked(plan)[:4] == ["L1", "L2", "L4", "Q1"]


@pytest.mark.parametrize("needed", [3.81, 12.0])
def test_between_integers_and_codes_it_is_a_matter_of_training(needed: float) -> None:
    plan = select(make(ratio_needed=needed))
    assert (plan.quick, kinds(plan)) == ((), ["structured-pruning", "distillation", "static-int8"])
    assert plan.last == (UNTRAINED,)  # where they miss the target
    assert "where that misses the target, quantization under a code length follows, without training" in plan.notes
    for changes in ({"resources": "none"}, {"train_samples": 0}):
        plan = select(make(ratio_needed=needed, **changes))
        assert (plan.quick, plan.steps) == ((), (UNTRAINED,))
        assert rules_asked(plan) == ["L1", "L2", "L4", "L3"]


@pytest.mark.parametrize("needed", [3.81, 12.0])
def test_where_channels_know_too_much_codes_go_first(needed: float) -> None:
    facts = make(ratio_needed=needed)
    pruning = select(facts).steps[0]
    assert channels_in_question(facts) == (pruning, needed / INTEGERS_SUFFICE)
    plan = select(facts.model_copy(update={"narrowing_lost": 0.5}))
    assert (plan.quick, plan.steps, plan.last) == ((UNTRAINED,), (TRAINED,), ())
    assert rules_asked(plan) == ["L1", "L2", "L4", "L3", "L5", "L8", "L7", "L6"]
    assert select(facts.model_copy(update={"narrowing_lost": 0.05})).steps == select(facts).steps


@pytest.mark.parametrize(
    "changes",
    [
        {"ratio_needed": 3.0},
        {"ratio_needed": 13.0},
        {"resources": "none"},
        {"packed": True},
        {"objective": "compute"},
        {"profile": LINEAR, "ratio_needed": 4.5},  # 4 bits
        {"profile": LOGISTIC},
    ],
)
def test_channels_are_not_tried_where_it_would_change_nothing(changes: dict[str, Any]) -> None:
    assert channels_in_question(make(**changes)) is None


@pytest.mark.parametrize("needed", [2.0, 10.0, math.inf])
def test_packed_files_hold_codes_whatever_is_needed(needed: float) -> None:
    plan = select(make(ratio_needed=needed, packed=True))
    untrained, trained = (action.model_copy(update={"biases": "8-bit"}) for action in (UNTRAINED, TRAINED))
    assert (plan.quick, plan.steps) == ((untrained,), (trained,))
    assert rules_asked(plan) == ["L1", "L2", "L3", "L7", "L6"]
    plan = select(make(ratio_needed=needed, packed=True, resources="none"))
    assert not chooses_codes(make(ratio_needed=needed, packed=True, resources="none"))
    assert (plan.quick, plan.steps) == ((), (untrained,))
    assert not any("trained" in note for note in plan.notes)


@pytest.mark.parametrize("objective", ["latency", "compute", "energy"])
def test_codes_are_for_size_alone(objective: str) -> None:
    plan = select(make(objective=objective, ratio_needed=100.0, packed=True))
    assert plan.quick == ()
    assert kinds(plan)[:2] == ["structured-pruning", "distillation"]
    assert rules_asked(plan)[:2] == ["L1", "Q1"]


@pytest.mark.parametrize("scheme", ["entropy", "quantize+prune", "prune", "low-rank+prune"])
def test_the_codes_that_lose_least_are_learned(scheme: str) -> None:
    losses = (("entropy", 0.5), ("quantize+prune", 0.5), ("prune", 0.5), ("low-rank+prune", 0.5))
    plan = select(make(ratio_needed=40.0, code_losses=tuple((n, x - 0.1 * (n == scheme)) for n, x in losses)))
    assert (plan.quick, plan.steps) == ((UNTRAINED,), (LearningCompression.model_validate({"scheme": scheme}),))


def test_codes_learn_from_the_original_where_it_scores_classes() -> None:
    plan = select(make(ratio_needed=40.0, class_scores=False, accuracy_like=False, metric="mse"))
    assert plan.steps == (LearningCompression(technique="hard"),)


def test_the_bits_that_are_needed_are_told() -> None:
    assert select(make(ratio_needed=40.0)).notes[0] == (
        "0.8 bits a weight on average, the graph and what isn't coded included: which levels and how many is found by "
        "measuring"
    )


def test_a_model_of_one_layer_is_left_to_int8() -> None:
    plan = select(make(LOGISTIC, ratio_needed=3.0))
    assert plan.steps == (WeightOnly(bits=8),)
    assert "3x is left to 8-bit storage, which brings at most 3.7x, and no layer can be pruned" in plan.notes
    plan = select(make(LOGISTIC, ratio_needed=10.0))
    assert "10x is out of reach: int8 alone brings at most 4x, and no layer can be pruned" in plan.notes
    plan = select(make(LOGISTIC, objective="latency"))
    assert "how much latency int8 can save is measured on this machine, not assumed" in plan.notes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "compute"}, "objective compute"),
        ({"backend": "gpu", "objective": "latency"}, "backend gpu and objective latency"),
    ],
)
def test_one_layer_and_no_int8_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CannotCompress) as refusal:
        select(make(LOGISTIC, **changes))
    assert str(refusal.value) == (
        f"the model has only 1 Linear: no layer but its output can be pruned, and int8 is out because of {reason}"
    )


def test_a_model_without_known_layers_is_refused_by_name() -> None:
    text = (
        "the model has no convolutional, linear, attention or recurrent layer, only 2 Bilinear: "
        "nothing in it can be pruned or quantized"
    )
    with pytest.raises(CannotCompress) as refusal:
        select(make(model("other", "other", "other", other="Bilinear")))
    assert str(refusal.value) == text
    with pytest.raises(CannotCompress, match="only layers without weights"):
        select(make(model("other")))


def test_selection_is_pure() -> None:
    heuristics = make()
    assert select(heuristics) == select(heuristics)
    assert heuristics == make()


def test_explain_lists_every_rule() -> None:
    lines = explain().splitlines()
    assert len(lines) == len(rules())
    assert lines[0] == "S1  pruning strategy: Is there a layer whose outputs can be removed?"


@pytest.mark.parametrize("name", list(rules()))
def test_explain_points_to_the_function(name: str) -> None:
    _, rule = rules()[name]
    text = explain(name)
    path, line = next(row for row in text.splitlines() if row.startswith("code")).split()[1].rsplit(":", 1)
    source = (Path(__file__).parents[2] / path).read_text(encoding="utf-8").splitlines()
    assert source[int(line) - 1].startswith(f"def {rule.ask.__name__}(")
    assert rule.question in text
    assert rule.threshold in text
    assert rule.source in text


def test_explain_tells_where_answers_lead() -> None:
    lines = explain("q9").splitlines()
    line = inspect.getsourcelines(quantization_module.Q9.ask)[1]
    assert lines == [
        "Q9 (quantization)",
        "question   Is a generous drop permitted?",
        "threshold  more than 2 points (GENEROUS_POINTS)",
        "source     EasyCompress thesis, section 4.2.4 and figure 9",
        f"code       easycompress/selection/trees/quantization.py:{line}",
        "yes -> static-int8",
        "no -> dynamic-int8",
    ]
    assert "no -> linear or convolutional or attention" in explain("S5").splitlines()
    assert "not tried -> Q9" in explain("Q10").splitlines()
    assert "no -> Q8" in explain("Q7").splitlines()


def test_explain_unknown_rule() -> None:
    with pytest.raises(BadInput) as refusal:
        explain("P9")
    assert str(refusal.value) == (
        "explain P9: unknown rule; did you mean P1, P2, P3, P4? `easycompress explain` lists all"
    )
    for name in ("nonsense", ""):
        with pytest.raises(BadInput, match=r"did you mean S1, T1, P1, D1, Q1, L1\?"):
            explain(name)
