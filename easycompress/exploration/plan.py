"""Which points are measured: fixed actions, curve by curve, from gentle to strong."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from easycompress.distillation.settings import Distillation
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.projections.lowrank import LowRankAt
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.lc.schemes import tasks_for
from easycompress.lc.settings import DECADES, MOST_BITS, LearningCompression, bits_at
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.settings import StaticInt8, WeightOnly
from easycompress.selection.recipe import lacking
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from easycompress.core.goal import Objective
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task

Part = Literal["curves", "degradation", "recovery", "distillation"]


@dataclass(frozen=True)
class Point:
    """One setting to measure. `level` counts from 0 along its curve; `amount` is what the setting is said to be."""

    part: Part
    curve: str
    label: str
    level: int
    amount: float
    actions: tuple[Action, ...]

    @property
    def trains(self) -> bool:
        """Tell whether it takes epochs."""
        return any(action.trains for action in self.actions)


@dataclass(frozen=True)
class Curve:
    """One family: its name on the command line, what it is called in pictures, its levels from gentle to strong.

    `joined`: its points lie on one line; else each is a setting of its own.
    """

    name: str
    title: str
    levels: tuple[float, ...]
    joined: bool = True


CURVES = (
    Curve("quantize", "Q: codebook", (6.01, 4.01, 3.01, 2.01, 1.01)),
    Curve("prune", "P: pruning", (4.0, 2.0, 1.0, 0.6, 0.3)),
    Curve("low-rank", "L: low rank", (6.0, 3.0, 1.5, 0.75, 0.35)),
    Curve("quantize+prune", "Q+P", (2.6, 1.8, 1.4, 1.2, 1.08)),
    Curve("quantize+low-rank", "Q+L", (3.0, 2.0, 1.5, 1.2)),
    Curve("low-rank+prune", "L+P", (4.0, 2.0, 1.0, 0.5)),
    Curve("quantize+low-rank+prune", "Q+L+P", (3.0, 2.0, 1.5, 1.2)),
    Curve("entropy", "entropy-constrained", (2.0, 1.0, 0.5, 0.25, 0.12)),
    Curve("int8", "int8", (0, 1, 2, 3), joined=False),
    Curve("structured", "structured pruning", (0.2, 0.35, 0.5, 0.65, 0.8)),
    Curve("structured+int8", "structured pruning + int8", (0.2, 0.35, 0.5, 0.65, 0.8)),
    Curve("ranks", "low-rank layers", (0.25, 0.5, 0.75, 0.95)),
)
"""Every family. Levels of the LC schemes (quantize to entropy) are bits a weight; those with Q add up to 1 bit."""

LC = ("quantize", "prune", "low-rank", "quantize+prune", "quantize+low-rank", "low-rank+prune",
      "quantize+low-rank+prune", "entropy")  # fmt: skip

TEACH = Distillation(technique="combined", mode="budget")

MANY_LAYERS = 4
"""With more low-rank layers than this a label says the largest rank instead of all of them."""


def curve_named(name: str) -> Curve | None:
    """Return the family of that name."""
    return next((curve for curve in CURVES if curve.name == name), None)


def plan_curves(task: Task, profile: ModelProfile, objective: Objective) -> tuple[list[Point], dict[str, str]]:
    """Return the points of all curves, coarse coverage of all of them first, and why a curve is left out.

    A level that comes to the same setting as the one before is left out too, as on small layers.
    """
    found: list[list[Point]] = []
    left_out: dict[str, str] = {}
    for curve in CURVES:
        points = [make(curve, level, task.model, objective) for level in range(len(curve.levels))]
        reasons = [refusal(point.actions, task, profile) for point in points]
        kept = [point for point, reason in zip(points, reasons, strict=True) if reason is None]
        if not kept:
            left_out[curve.name] = reasons[0] or ""
            continue
        different = {point.label: point for point in reversed(kept)}
        found.append([different[label] for label in reversed(different)])
    return interleaved(found), left_out


def refusal(actions: Sequence[Action], task: Task, profile: ModelProfile) -> str | None:
    """Return why a model or its data can't take the actions, or None."""
    for action in actions:
        reason = technique_for(action).refuses(profile, action) or lacking(task, action)
        if reason is not None:
            return reason
    return None


def interleaved(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Return all points: of each curve the middle one first, then the ends, then what lies between."""
    orders = [[points[place] for place in coarse_first(len(points))] for points in curves]
    return [point for row in itertools.zip_longest(*orders) for point in row if point is not None]


def coarse_first(count: int) -> list[int]:
    """Return 0 .. count - 1, the middle first, then the ends, then halves of what lies between."""
    order = list(dict.fromkeys((count // 2, 0, count - 1))) if count else []
    while len(order) < count:
        known = sorted(order)
        gaps = [(b - a, -a, (a + b) // 2) for a, b in itertools.pairwise(known) if b - a > 1]
        order.append(max(gaps)[2])
    return order


def make(curve: Curve, level: int, model: nn.Module, objective: Objective) -> Point:
    """Return one point of a family."""
    amount = curve.levels[level]
    actions, label = _lc(curve.name, amount, model) if curve.name in LC else _others(curve.name, amount, objective)
    return Point(part="curves", curve=curve.name, label=label, level=level, amount=amount, actions=actions)


def _lc(scheme: str, bits: float, model: nn.Module) -> tuple[tuple[Action, ...], str]:
    strength = math.log2(MOST_BITS / bits) / DECADES
    ranks = "priced" if "low-rank" in scheme else "even"
    action = LearningCompression.model_validate({"scheme": scheme, "strength": strength, "ranks": ranks})
    return (action,), " + ".join(words_of(tasks_for(action.scheme, model, bits_at(strength), action.ranks)))


def words_of(tasks: dict[object, object]) -> list[str]:
    """Return what LC tasks store, one phrase a form: k of codebooks, ranks, the share of nonzeros, bits a weight."""
    each = [part for value in tasks.values() for part in (value if isinstance(value, list) else [value])]
    words: dict[str, None] = {}
    ranks = [part.rank for part in each if isinstance(part, LowRankAt)]
    for part in each:
        if isinstance(part, AdaptiveQuantization):
            words[f"k={part.k}"] = None
        elif isinstance(part, LowRankAt):
            words["rank " + ("/".join(map(str, ranks)) if len(ranks) <= MANY_LAYERS else f"≤{max(ranks)}")] = None
        elif isinstance(part, ConstraintL0):
            words[f"{100 * (part.share or 0):.2g} % nonzero"] = None
        elif isinstance(part, EntropyConstrained):
            words[f"{part.bits_per_weight:.2g} bits"] = None
    return list(words)


def _others(name: str, amount: float, objective: Objective) -> tuple[tuple[Action, ...], str]:
    if name == "int8":
        return _integers()[int(amount)]
    if name == "ranks":
        gain: Literal["compute", "latency"] = "latency" if objective == "latency" else "compute"
        return (LowRankLayers(strength=amount, gain=gain), TEACH), f"{amount:.0%} of the saving"
    pruning = pruned(amount, objective)
    if name == "structured":
        return (pruning, TEACH), f"{amount:.0%} of channels"
    return (pruning, TEACH, StaticInt8()), f"{amount:.0%} of channels, int8"


def pruned(share: float, objective: Objective) -> StructuredPruning:
    """Return the removal of a share of the channels, spread by what it harms for what it saves."""
    saves: Literal["params", "macs"] = "params" if objective == "size" else "macs"
    return StructuredPruning(strength=share, importance="group-norm", ratios="sensitivity", saves=saves)


def _integers() -> tuple[tuple[tuple[Action, ...], str], ...]:
    return (
        ((StaticInt8(),), "static int8"),
        ((QatInt8(mode="budget"),), "QAT int8"),
        ((WeightOnly(bits=8),), "weights in 8 bits"),
        ((WeightOnly(bits=4),), "weights in 4 bits"),
    )
