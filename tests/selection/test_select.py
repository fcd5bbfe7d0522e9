from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import easycompress.selection.trees.quantization as quantization_module
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.profile import Architecture, Family, LayerProfile, ModelProfile
from easycompress.distillation.settings import Distillation
from easycompress.lc.settings import EntropyQuantization, LearningCompression, Scheme
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8
from easycompress.selection.explain import TREES, explain, rules
from easycompress.selection.heuristics import Heuristics
from easycompress.selection.select import FALLBACKS, chooses_codes, select
from easycompress.selection.walk import leaves

if TYPE_CHECKING:
    from easycompress.core.plan import Plan

TYPES = {"convolutional": "Conv2d", "linear": "Linear", "attention": "MultiheadAttention", "other": "LSTM"}


def model(architecture: Architecture, *families: Family, batch_norm: bool = False) -> ModelProfile:
    rows = tuple(
        LayerProfile(name=str(i), type=TYPES[family], family=family, params=1000, macs=1000)
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
ATTENTIVE = model("transformer", *["attention"] * 9, "linear")
TRANSFORMER = model("transformer", *["attention"] * 9, "linear", "linear")
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
        StructuredPruning(strategy="convolutional", importance="group-norm"),
        Distillation(technique="combined"),
        StaticInt8(samples=512),
    )
    assert plan.quick == ()
    assert rules_asked(plan) == [
        "L1",
        "L2",
        "L4",
        "L3",
        "L5",
        "Q1",
        "Q2",
        "Q3",
        "Q4",
        "S1",
        "S2",
        "S3",
        "P1",
        "P2",
        "P3",
    ] + [f"D{i}" for i in range(1, 8)]
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
        "without int8 pruning would have to bring about 4x: about 50% of the channels"
    ) in note
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


def test_the_most_within_the_floor() -> None:
    plan = select(make(objective="compute", ratio_needed=math.inf))
    assert "the most within the floor is sought: how far pruning can go is measured" in plan.notes
    plan = select(make(ratio_needed=math.inf))
    assert (kinds(plan), [step.kind for step in plan.quick]) == (["lc"], ["entropy-quantization"])
    assert plan.notes[0].startswith("the least on average, ")


@pytest.mark.parametrize(
    ("changes", "choice", "note"),
    [
        ({}, "group-norm", "group-norm takes the place of bn-scale, which P3 chose: "),
        ({"objective": "compute", "ratio_needed": math.inf}, "l1", "l1 takes the place of lamp, which P2 chose: "),
        (
            {"profile": TRANSFORMER, "ratio_needed": 5.0},
            "linear",
            "linear takes the place of attention, which S3 chose: ",
        ),
        (
            {"profile": ATTENTIVE, "ratio_needed": 5.0},
            "global",
            "global takes the place of attention, which S3 chose: ",
        ),
        ({}, 512, "static-int8 takes the place of qat-int8, which Q4 chose: "),
        ({"resources": "limited"}, 512, "static-int8 takes the place of dynamic-int8, which Q5 chose: "),
    ],
)
def test_fallbacks_are_told(changes: dict[str, Any], choice: object, note: str) -> None:
    plan = select(make(**changes))
    told = [text for text in plan.notes if text.startswith(note)]
    assert len(told) == 1
    assert len(told[0]) > len(note)
    assert any(choice in step.model_dump().values() for step in plan.steps)


def test_no_fallback_no_note() -> None:
    plan = select(make(resources="limited", points=3.0, profile=model("cnn", *["convolutional"] * 9, "linear")))
    assert not [note for note in plan.notes if "takes the place" in note]


def test_each_choice_is_carried_out_or_has_a_fallback_that_is() -> None:
    settings: set[str] = {"none", "static-int8", "entropy-quantization"}
    settings.update(f"entropy-quantization, then lc {scheme}" for scheme in get_args(Scheme))
    for kind, names in ((StructuredPruning, ("strategy", "importance")), (Distillation, ("technique",))):
        for name in names:
            settings.update(kind.model_json_schema()["properties"][name]["enum"])
    missing = {leaf for tree in TREES.values() for leaf in leaves(tree)} - settings
    assert missing == {fallback.choice for fallback in FALLBACKS}
    assert {choice for fallback in FALLBACKS for choice in fallback.instead} <= settings
    assert all(fallback.reason for fallback in FALLBACKS)


def test_dynamic_int8_is_avoided_for_a_measured_reason() -> None:
    reason = next(fallback.reason for fallback in FALLBACKS if fallback.choice == "dynamic-int8")
    assert "0.155 against 0.058 ms on LeNet5" in reason


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
    assert rules_asked(plan) == ["L1", "L2", "L4", "L3", "L5", "L6"]
    assert chooses_codes(make(**({"ratio_needed": 40.0} | changes)))
    assert "the training-free quantization goes first; where it meets the goal nothing is trained" in plan.notes


@pytest.mark.parametrize("needed", [3.8, 1.0])
@pytest.mark.parametrize("resources", ["none", "ample"])
def test_what_integers_reach_is_left_to_them(needed: float, resources: str) -> None:
    plan = select(make(ratio_needed=needed, resources=resources))
    assert plan.quick == ()
    assert kinds(plan)[-1] == "static-int8"
    assert rules_asked(plan)[:4] == ["L1", "L2", "L4", "Q1"]


@pytest.mark.parametrize("needed", [3.81, 12.0])
def test_between_integers_and_codes_it_is_a_matter_of_training(needed: float) -> None:
    plan = select(make(ratio_needed=needed))
    assert (plan.quick, kinds(plan)) == ((), ["structured-pruning", "distillation", "static-int8"])
    for changes in ({"resources": "none"}, {"train_samples": 0}):
        plan = select(make(ratio_needed=needed, **changes))
        assert (plan.quick, plan.steps) == ((), (UNTRAINED,))
        assert rules_asked(plan) == ["L1", "L2", "L4", "L3"]


@pytest.mark.parametrize("needed", [2.0, 10.0, math.inf])
def test_packed_files_hold_codes_whatever_is_needed(needed: float) -> None:
    plan = select(make(ratio_needed=needed, packed=True))
    untrained, trained = (action.model_copy(update={"biases": "8-bit"}) for action in (UNTRAINED, TRAINED))
    assert (plan.quick, plan.steps) == ((untrained,), (trained,))
    assert rules_asked(plan) == ["L1", "L2", "L3", "L6"]
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
    assert kinds(plan) == ["static-int8"]
    assert "3x is left to int8, which brings at most 4x, and no layer can be pruned" in plan.notes
    plan = select(make(LOGISTIC, ratio_needed=10.0))
    assert "10x is out of reach: int8 alone brings at most 4x, and no layer can be pruned" in plan.notes
    plan = select(make(LOGISTIC, objective="latency"))
    assert "how much latency int8 can save is measured on this machine, not assumed" in plan.notes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"objective": "compute"}, "objective compute"), ({"backend": "gpu"}, "backend gpu")],
)
def test_one_layer_and_no_int8_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CannotCompress) as refusal:
        select(make(LOGISTIC, **changes))
    assert str(refusal.value) == (
        f"the model has only 1 Linear: no layer but its output can be pruned, and int8 is out because of {reason}"
    )


def test_a_model_without_known_layers_is_refused_by_name() -> None:
    text = (
        "the model has no convolutional, linear or attention layer, only 2 LSTM: "
        "nothing in it can be pruned or quantized"
    )
    with pytest.raises(CannotCompress) as refusal:
        select(make(model("rnn", "other", "other")))
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
    lines = explain("q5").splitlines()
    line = inspect.getsourcelines(quantization_module.Q5.ask)[1]
    assert lines == [
        "Q5 (quantization)",
        "question   Is a generous drop permitted?",
        "threshold  more than 2 points (GENEROUS_POINTS)",
        "source     EasyCompress thesis, section 4.2.4 and figure 9",
        f"code       easycompress/selection/trees/quantization.py:{line}",
        "yes -> static-int8",
        "no -> dynamic-int8 (carried out as static-int8)",
    ]
    assert (
        "no -> linear or convolutional or attention (carried out as linear, else global)" in explain("S5").splitlines()
    )


def test_explain_unknown_rule() -> None:
    with pytest.raises(BadInput) as refusal:
        explain("P9")
    assert str(refusal.value) == "explain P9: unknown rule; did you mean P1, P2, P3? `easycompress explain` lists all"
    with pytest.raises(BadInput, match="did you mean S1, S2, S3, S4, S5, P1"):
        explain("nonsense")
