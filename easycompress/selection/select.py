"""Walks the trees and turns their leaves into a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import CannotCompress
from easycompress.core.plan import Action, Plan
from easycompress.distillation.settings import Distillation
from easycompress.lc.settings import EntropyQuantization, LearningCompression
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8
from easycompress.selection.budget import MEASURED_ONLY, explain_split
from easycompress.selection.heuristics import PRUNABLE
from easycompress.selection.trees.distillation import DISTILLATION
from easycompress.selection.trees.lc import L6, LC
from easycompress.selection.trees.pruning import PRUNING
from easycompress.selection.trees.quantization import QUANTIZATION
from easycompress.selection.trees.strategy import STRATEGY
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


UNAUGMENTED = "the training images are not augmented; for natural images --augment flip-crop usually recovers more"


@dataclass(frozen=True)
class Fallback:
    """What takes the place of a choice that no technique carries out: the first of `instead` that the model has."""

    choice: str
    instead: tuple[str, ...]
    reason: str


FALLBACKS: tuple[Fallback, ...] = (
    Fallback("attention", ("linear", "global"), "whole attention heads can't be removed in this version"),
    Fallback(
        "bn-scale",
        ("group-norm",),
        "ranking by batch-norm scale is not offered in this version; the group norm judges the same channels",
    ),
    Fallback("lamp", ("l1",), "LAMP scores are not offered in this version; both rank by magnitude"),
    Fallback("qat-int8", ("static-int8",), "training with simulated integers is not offered in this version"),
    Fallback(
        "dynamic-int8",
        ("static-int8",),
        "dynamic int8 convolutions run slower than float32 in ONNX Runtime: measured 0.155 against 0.058 ms on LeNet5",
    ),
)


def select(heuristics: Heuristics) -> Plan:
    """Return the plan for these heuristics, with every rule that was asked.

    Raises CannotCompress, naming the layer types, when nothing in the model can be pruned or quantized.
    """
    if not any(layer.family in PRUNABLE for layer in heuristics.profile.layers):
        raise CannotCompress(
            f"the model has no convolutional, linear or attention layer, only {_types(heuristics)}: "
            "nothing in it can be pruned or quantized"
        )
    chosen = _Chosen(heuristics)
    codes = chosen.ask(LC)
    if codes != "none":
        return _coded(heuristics, codes, chosen)
    quantization = chosen.ask(QUANTIZATION)
    strategy = chosen.ask(STRATEGY)
    steps: list[Action] = []
    if strategy != "none":
        steps.append(_pruning(heuristics, strategy, chosen.ask(PRUNING)))
        distillation = chosen.ask(DISTILLATION)
        if distillation != "none":
            steps.append(Distillation.model_validate({"technique": distillation}))
    if quantization != "none":
        steps.append(StaticInt8(samples=min(StaticInt8().samples, heuristics.calibration_samples)))
    if not steps:
        raise CannotCompress(
            f"the model has only {_types(heuristics)}: no layer but its output can be pruned, and int8 is out "
            f"because of {_why_not_int8(chosen.decisions)}"
        )
    notes = (*chosen.notes, *_notes(heuristics, steps))
    return Plan(steps=tuple(steps), decisions=tuple(chosen.decisions), notes=notes)


def chooses_codes(heuristics: Heuristics) -> bool:
    """Tell whether the plan trains codes, so that it is worth seconds to find out which."""
    return any(decision.rule == L6.name for decision in walk(LC, heuristics)[1])


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
    learned = LearningCompression.model_validate({"scheme": scheme, "technique": technique, "biases": biases})
    return Plan(steps=(learned,), decisions=tuple(chosen.decisions), notes=tuple(notes), quick=(quick,))


class _Chosen:
    """Gathers decisions and the notes of fallbacks while trees are asked in turn."""

    def __init__(self, heuristics: Heuristics) -> None:
        self.heuristics = heuristics
        self.decisions: list[Decision] = []
        self.notes: list[str] = []

    def ask(self, tree: Tree) -> str:
        """Return the tree's choice, or what takes its place."""
        choice, decisions = walk(tree, self.heuristics)
        self.decisions.extend(decisions)
        for fallback in FALLBACKS:
            if fallback.choice == choice:
                instead = substitute(fallback, self.heuristics)
                self.notes.append(
                    f"{instead} takes the place of {choice}, which {decisions[-1].rule} chose: {fallback.reason}"
                )
                return instead
        return choice


def substitute(fallback: Fallback, heuristics: Heuristics) -> str:
    """Return the first stand-in that this model permits: a family of layers only when it has removable outputs."""
    unavailable = set(PRUNABLE) - set(heuristics.removable)
    return next(choice for choice in fallback.instead if choice not in unavailable)


def _pruning(heuristics: Heuristics, strategy: str, importance: str) -> StructuredPruning:
    timed = heuristics.objective in MEASURED_ONLY
    settings = {"strategy": strategy, "importance": importance, "round_to": RUNTIME_WIDTH if timed else 1}
    if heuristics.resources == "none" or not heuristics.train_samples:
        settings["steps"] = 1  # several steps are for recovering in between
    return StructuredPruning.model_validate(settings)


_HIDDEN_AND_OUTPUT = 2  # linear layers of which only one has outputs to remove


def _notes(heuristics: Heuristics, steps: list[Action]) -> list[str]:
    prunes, distils, quantizes = (
        any(isinstance(step, kind) for step in steps) for kind in (StructuredPruning, Distillation, StaticInt8)
    )
    linear = sum(layer.family == "linear" for layer in heuristics.profile.layers)
    alone = any(getattr(step, "strategy", "") == "linear" for step in steps) and linear == _HIDDEN_AND_OUTPUT
    notes = [explain_split(heuristics, prunes=prunes, quantizes=quantizes, alone=alone)]
    if heuristics.backend == "gpu" and heuristics.objective in MEASURED_ONLY:
        notes.append(f"{heuristics.objective} is measured on this machine's processor, not on a GPU")
    if prunes and not distils:
        notes.append("nothing is trained, so pruning must keep the floor without any recovery")
    if distils and heuristics.natural_images and not heuristics.augmented:
        notes.append(UNAUGMENTED)
    return notes


def _types(heuristics: Heuristics) -> str:
    counts = heuristics.profile.counts()
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "layers without weights"


def _why_not_int8(decisions: list[Decision]) -> str:
    return next(d.evidence for d in reversed(decisions) if d.rule.startswith("Q"))
