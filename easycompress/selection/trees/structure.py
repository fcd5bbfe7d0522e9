"""What goes out of the structure: channels, ranks of layers, or whole blocks besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

STRUCTURES = ("channels", "ranks")
"""What is tried without training: fewer channels (of transformers heads and neurons), and layers of lower rank."""


def _objective(heuristics: Heuristics) -> Answer:
    return heuristics.objective, f"objective {heuristics.objective}"


def _least_loss(heuristics: Heuristics) -> Answer:
    return _least(dict(heuristics.structure_losses))


def _least_below(heuristics: Heuristics) -> Answer:
    return _least(dict(heuristics.lesser_losses))


def _least(losses: dict[str, float]) -> Answer:
    if not losses:
        return "channels", "nothing was tried"
    best = min(losses, key=lambda name: losses[name])
    return best, "loss: " + ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())


def _furthest(heuristics: Heuristics) -> Answer:
    speeds = dict(heuristics.structure_speeds)
    if not speeds:
        return "alike", "nothing was tried"
    best = max(speeds, key=lambda name: speeds[name])
    evidence = "faster: " + ", ".join(f"{name} {speed:.3g}x" for name, speed in speeds.items())
    return "alike" if len(speeds) > 1 and min(speeds.values()) == speeds[best] else best, evidence


def _blocks(heuristics: Heuristics) -> Answer:
    count = heuristics.blocks
    amount = {0: "no residual block", 1: "1 residual block"}.get(count, f"{count} residual blocks")
    return "yes" if count else "no", f"{amount} could be removed"


T1 = Rule(
    "T1",
    "What is to fall?",
    _objective,
    "none: low rank saves operations, and for bytes the codes are better",
    "ours: the thesis knows pruning alone",
)
T2 = Rule(
    "T2",
    "What loses least at the needed number of operations, or speed, before any training?",
    _least_loss,
    "none: the least loss, at 4x at most, of those that can save what is needed; where the most is wanted at 2x, and "
    "at 4x if that loses little (TOO_LOST of selection.heuristics); channels where nothing could be tried",
    "ours: seconds of either on a copy; the LC comparison (section V) finds that the choice depends on the model",
)
T3 = Rule(
    "T3",
    "Are there whole blocks that can be removed?",
    _blocks,
    "none: at least one residual block that keeps its input's shape",
    "ours, measured: ResNet20 with every layer as narrow as 16 channels and in int8 is 1.7x faster at batch 1; what "
    "remains is the number of operators",
)
T4 = Rule(
    "T4",
    "What becomes faster, up to what is needed, before it has lost too much, without any training?",
    _furthest,
    "a copy may lose a tenth of what the original knows (TOO_LOST of selection.heuristics); alike: all are fast enough",
    "ours: copies timed in ONNX Runtime; operations mislead, since layers of low rank are more operators: with LeNet5 "
    "2.9x fewer operations are 2.6x less time by low rank, 1.9x fewer are 3.0x less time by channels",
)

T5 = Rule(
    "T5",
    "Where the target is missed, what loses least half of the way there, before any training?",
    _least_below,
    "none: the least loss at the square root of what is needed, at 2x at least and 4x at most; it goes on where it is "
    "not what T2 chose",
    "ours, measured: what loses least depends on how much goes. ResNet20 asked for 4x fewer operations within a point, "
    "six epochs: 1.42x by channels alone, as T2 chose for 4x; by ranks 1.82x was within it",
)

_NARROWER = Ask(T2, {name: Leaf(name) for name in STRUCTURES})
_FASTER = Ask(T4, {**{name: Leaf(name) for name in STRUCTURES}, "alike": _NARROWER})

STRUCTURE = Ask(
    T1,
    {
        "size": Leaf("channels"),
        "compute": _NARROWER,
        "energy": _NARROWER,
        "latency": Ask(T3, {"yes": Leaf("channels and blocks"), "no": _FASTER}),
    },
)

LESSER = Ask(T5, {name: Leaf(name) for name in STRUCTURES})
"""How a plan goes on below a target that it misses: asked where operations count."""
