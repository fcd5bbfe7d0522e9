"""Walks the trees and turns their leaves into a plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import CannotCompress
from easycompress.core.plan import Action, Plan
from easycompress.distillation.settings import Distillation
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.lc.settings import EntropyQuantization, LearningCompression, TunedQuantization
from easycompress.pruning.depth.settings import DepthPruning
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.settings import DynamicInt8, Float16, StaticInt8, WeightOnly
from easycompress.selection.budget import MEASURED_ONLY, explain_split
from easycompress.selection.heuristics import PRUNABLE
from easycompress.selection.trees.distillation import DISTILLATION
from easycompress.selection.trees.lc import INTEGERS_SUFFICE, L6, L8, LC
from easycompress.selection.trees.pruning import PRUNING
from easycompress.selection.trees.quantization import Q10, QUANTIZATION
from easycompress.selection.trees.strategy import STRATEGY
from easycompress.selection.trees.structure import LESSER, STRUCTURE, STRUCTURES, T2
from easycompress.selection.walk import walk

if TYPE_CHECKING:
    from easycompress.core.plan import Decision
    from easycompress.selection.heuristics import Heuristics
    from easycompress.selection.walk import Tree

RUNTIME_WIDTH = 16
"""Channels are kept in multiples of this when time counts: vector instructions of 512 bits hold 16 floats.

Measured on ResNet20 at half the multiply-accumulates, ONNX Runtime, batch 1: 0.40 ms with free channel counts, 0.34 ms
in multiples of 8, 0.26 ms in multiples of 16 (0.46 ms unpruned); with int8 0.32, 0.25 and 0.18 ms (0.23 ms unpruned).
"""


SPARSITY = 1e-4
"""Weight of the L1 penalty on batch norm scales before pruning (Liu et al. 2017 use 1e-4 and 1e-5)."""

UNAUGMENTED = "the training images are not augmented; for natural images --augment flip-crop usually recovers more"


DEPTH = DepthPruning(end=0.6, most=0.57)
WIDTH_FROM = 0.3
"""Where blocks and channels go together blocks begin, up to four of seven, and widths follow from this strength on.

Measured on ResNet20, one thread, batch 1, with int8: 2.1x as it is and with 30 % of the channels gone (in multiples of
16), 2.5x without two blocks, 3.0x without three, 3.1x without three and with 30 % of the channels gone.
"""


ALONE = "weight-only-4"
"""A choice of integers whose dial reaches the target alone, for less than pruning besides."""


def select(heuristics: Heuristics) -> Plan:
    """Return the plan for these heuristics, with every rule that was asked.

    Raises CannotCompress, naming the layer types, when nothing in the model can be pruned or quantized.
    """
    if not heuristics.recurrent_share and not any(layer.family in PRUNABLE for layer in heuristics.profile.layers):
        raise CannotCompress(
            f"the model has no convolutional, linear, attention or recurrent layer, only {_types(heuristics)}: "
            "nothing in it can be pruned or quantized"
        )
    chosen = _Chosen(heuristics)
    codes = chosen.ask(LC)
    if codes != "none":
        return _coded(heuristics, codes, chosen)
    quantization = chosen.ask(QUANTIZATION)
    strategy = chosen.ask(STRATEGY)
    steps: list[Action] = []
    other: Action | None = None
    if strategy != "none" and quantization != ALONE:
        steps += _restructuring(heuristics, strategy, chosen)
        other = _otherwise(heuristics, strategy, steps, chosen)
        distillation = chosen.ask(DISTILLATION)
        if distillation != "none":
            outputs = "logits" if heuristics.class_scores else "values"
            steps.append(Distillation.model_validate({"technique": distillation, "outputs": outputs}))
    if quantization != "none":
        steps.append(_quantization(heuristics, quantization))
    if not steps:
        raise CannotCompress(
            f"the model has only {_types(heuristics)}: no layer but its output can be pruned, and int8 is out "
            f"because of {_why_not_int8(chosen.decisions)}"
        )
    notes = _notes(heuristics, steps)
    last: tuple[Action, ...] = ()
    if any(decision.rule == L8.name for decision in chosen.decisions):  # codes reach it too, and take no training
        last = (EntropyQuantization(),)
        notes.append("where that misses the target, quantization under a code length follows, without training")
    lesser: tuple[Action, ...] = ()
    if other is not None:
        lesser = (other, *(step for step in steps if not step.restructures))
        notes.append(f"where that misses the target, {other.kind} goes on below it: it loses less there")
    return Plan(steps=tuple(steps), decisions=tuple(chosen.decisions), notes=tuple(notes), lesser=lesser, last=last)


def chooses_codes(heuristics: Heuristics) -> bool:
    """Tell whether the plan trains codes, so that it is worth seconds to find out which."""
    return any(decision.rule == L6.name for decision in walk(LC, heuristics)[1])


def channels_in_question(heuristics: Heuristics) -> tuple[Action, float] | None:
    """Return the pruning that rule L8 asks about and by what ratio parameters must go; None where nothing is pruned."""
    strategy = walk(STRATEGY, heuristics)[0]
    asked = any(decision.rule == L8.name for decision in walk(LC, heuristics)[1])
    if not asked or strategy == "none" or walk(QUANTIZATION, heuristics)[0] == ALONE:
        return None
    narrower = channels(heuristics, strategy, walk(PRUNING, heuristics)[0])
    return narrower, heuristics.ratio_needed / INTEGERS_SUFFICE


def structures(heuristics: Heuristics) -> dict[str, Action]:
    """Return the changes of structure worth comparing on copies, by name; empty where no rule asks for that."""
    strategy = walk(STRATEGY, heuristics)[0]
    asked = any(decision.rule == T2.name for decision in walk(STRUCTURE, heuristics)[1])
    if strategy == "none" or not asked or walk(LC, heuristics)[0] != "none":
        return {}
    return {
        "channels": channels(heuristics, strategy, walk(PRUNING, heuristics)[0]),
        "ranks": ranks(heuristics),
    }


def integers_in_question(heuristics: Heuristics) -> dict[str, Action]:
    """Return the quantizations worth trying on a copy, by name; empty where the answer would change nothing."""
    if walk(LC, heuristics)[0] != "none" or not heuristics.calibration_samples:
        return {}
    asked: set[str] = set()
    choices: set[str] = set()
    for losses in ((0.0, math.inf), (math.inf, 0.0), (math.inf, math.inf)):
        supposed = tuple(zip(("static-int8", "dynamic-int8"), losses, strict=True))
        choice, decisions = walk(QUANTIZATION, heuristics.model_copy(update={"integer_losses": supposed}))
        choices.add(choice)
        asked |= {decision.rule for decision in decisions}
    if len(choices) == 1:
        return {}
    kinds = ("static-int8", "dynamic-int8") if Q10.name in asked else ("static-int8",)
    return {kind: _quantization(heuristics, kind) for kind in kinds}


def _coded(heuristics: Heuristics, choice: str, chosen: _Chosen) -> Plan:
    """Return the plan that stores weights as codes: first without training, then, where that is possible, with it."""
    biases = "8-bit" if heuristics.packed else "float"
    quick = EntropyQuantization.model_validate({"biases": biases})
    share = (
        f"{32 / heuristics.ratio_needed:.3g} bits a weight" if math.isfinite(heuristics.ratio_needed) else "the least"
    )
    notes = [
        f"{share} on average, the graph and what isn't coded included: which levels and how many is found by measuring"
    ]
    if choice == "entropy-quantization":
        return Plan(steps=(quick,), decisions=tuple(chosen.decisions), notes=tuple(notes))
    technique = "combined" if heuristics.class_scores else "hard"
    notes.append("the training-free quantization goes first; where it meets the goal nothing is trained")
    if heuristics.natural_images and not heuristics.augmented:
        notes.append(UNAUGMENTED)
    scheme = choice.rpartition(" ")[2]
    learned: Action
    if scheme == TunedQuantization.model_fields["kind"].default:
        learned = TunedQuantization.model_validate({"technique": technique, "biases": biases})
    else:
        learned = LearningCompression.model_validate({"scheme": scheme, "technique": technique, "biases": biases})
    return Plan(steps=(learned,), decisions=tuple(chosen.decisions), notes=tuple(notes), quick=(quick,))


class _Chosen:
    """Gathers decisions while trees are asked in turn."""

    def __init__(self, heuristics: Heuristics) -> None:
        self.heuristics = heuristics
        self.decisions: list[Decision] = []

    def ask(self, tree: Tree) -> str:
        """Return the tree's choice."""
        choice, decisions = walk(tree, self.heuristics)
        self.decisions.extend(decisions)
        return choice


def _restructuring(heuristics: Heuristics, strategy: str, chosen: _Chosen) -> list[Action]:
    """Return what makes the model narrower or shallower, all of it driven by one strength."""
    structure = chosen.ask(STRUCTURE)
    if structure == "ranks":
        return [ranks(heuristics)]
    narrower = channels(heuristics, strategy, chosen.ask(PRUNING))
    if structure == "channels and blocks":
        return [DEPTH, narrower.model_copy(update={"start": WIDTH_FROM})]
    return [narrower]


def _otherwise(heuristics: Heuristics, strategy: str, steps: list[Action], chosen: _Chosen) -> Action | None:
    """Return the other change of the structure that is to go on below a missed target, None where there is none."""
    if len(heuristics.lesser_losses) < len(STRUCTURES):
        return None
    if chosen.ask(LESSER) == "ranks":
        other: Action = ranks(heuristics)
        return None if other in steps else other
    other = channels(heuristics, strategy, walk(PRUNING, heuristics)[0])
    if other in steps:
        return None
    chosen.ask(PRUNING)  # the report tells why these channels
    return other


def ranks(heuristics: Heuristics) -> LowRankLayers:
    """Return the action that lowers ranks for these heuristics, its dial unset."""
    timed = heuristics.objective == "latency"
    settings = {"gain": "latency" if timed else "compute", "round_to": RUNTIME_WIDTH if timed else 1}
    return LowRankLayers.model_validate(settings)


def channels(heuristics: Heuristics, strategy: str, importance: str) -> Action:
    """Return the action that removes channels, or a transformer's heads and neurons, its dial unset.

    Where most of what a transformer can lose is in no block of it, channels go, of all layers.
    """
    settings: dict[str, Any] = {"round_to": RUNTIME_WIDTH if heuristics.objective in MEASURED_ONLY else 1}
    if heuristics.resources == "none" or not heuristics.train_samples:
        settings["steps"] = 1  # several steps are for recovering in between
    if heuristics.hybrid:
        strategy = "global"
    elif heuristics.profile.architecture == "transformer" and strategy != "convolutional":
        part = {"linear": "feed-forward", "attention": "attention"}.get(strategy, "both")
        kind = "taylor" if importance == "taylor" else "norm"
        return TransformerPruning.model_validate(settings | {"part": part, "importance": kind})
    if importance == "bn-scale" and heuristics.resources == "ample":
        settings["sparsity"] = SPARSITY
    if heuristics.calibration_samples:
        settings |= {"ratios": "sensitivity", "saves": "params" if heuristics.objective == "size" else "macs"}
    return StructuredPruning.model_validate(settings | {"strategy": strategy, "importance": importance})


def _quantization(heuristics: Heuristics, choice: str) -> Action:
    """Return the action of a leaf of the quantization tree."""
    samples = min(StaticInt8().samples, heuristics.calibration_samples)
    if choice == "static-int8":
        return StaticInt8(samples=samples)
    if choice == "qat-int8":
        # Values have no softmax to imitate: they are trained on the task's own loss.
        taught = walk(DISTILLATION, heuristics)[0] if heuristics.class_scores else "hard"
        return QatInt8.model_validate({"samples": samples, "technique": taught})
    if choice.startswith("weight-only"):
        return WeightOnly(bits=4, strength=None) if choice.endswith("4") else WeightOnly(bits=8)
    return DynamicInt8() if choice == "dynamic-int8" else Float16()


_HIDDEN_AND_OUTPUT = 2  # linear layers of which only one has outputs to remove


def _notes(heuristics: Heuristics, steps: list[Action]) -> list[str]:
    prunes = any(step.restructures for step in steps)
    trains = any(step.trains for step in steps)
    quantizes = any(step.integers for step in steps)
    structure = "low rank" if any(isinstance(step, LowRankLayers) for step in steps) else "pruning"
    linear = sum(layer.family == "linear" for layer in heuristics.profile.layers)
    alone = any(getattr(step, "strategy", "") == "linear" for step in steps) and linear == _HIDDEN_AND_OUTPUT
    notes = [explain_split(heuristics, prunes=prunes, quantizes=quantizes, alone=alone, structure=structure)]
    if heuristics.backend == "gpu" and heuristics.objective in MEASURED_ONLY:
        notes.append(
            f"{heuristics.objective} is measured on this machine's processor, not on a GPU; float16, which GPUs run "
            "faster, is tried for --objective size alone, where the file shows what it brings"
        )
    if prunes and not trains:
        notes.append(f"nothing is trained, so {structure} must keep the floor without any recovery")
    if trains and heuristics.natural_images and not heuristics.augmented:
        notes.append(UNAUGMENTED)
    return notes


def _types(heuristics: Heuristics) -> str:
    counts = heuristics.profile.counts()
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "layers without weights"


def _why_not_int8(decisions: list[Decision]) -> str:
    asked = {d.rule: d.evidence for d in decisions if d.rule.startswith("Q")}
    last = list(asked.values())[-1]
    return f"{asked['Q2']} and {last}" if "Q3" in asked else last
