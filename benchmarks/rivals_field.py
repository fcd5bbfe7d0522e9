"""Who is compared: each rival's script and package, and our own runs. Adding one is adding a row here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "rival_scripts"

EVERY = ("lenet5", "resnet20", "minilm")
CONVOLUTIONAL = ("lenet5", "resnet20")

TOO_MUCH = "-5"
"""Points of drop that nothing reaches: the accuracy would have to rise by five."""


@dataclass(frozen=True)
class Rival:
    """One way to compress. `script` is what its user writes; its lines are counted."""

    name: str
    package: str
    """As the registry calls it."""
    script: str = ""
    """Empty: there is nothing to run, and `absent` says why."""
    arguments: tuple[str, ...] = ()
    models: tuple[str, ...] = EVERY
    transport: bool = False
    """Its file must be decoded before ONNX Runtime runs it; compared with ours of `--format packed`."""
    floor: str | None = None
    """The most that the quality may drop, in points, where it takes such a floor."""
    absent: str = ""

    @property
    def asks_too_much(self) -> bool:
        """Return whether the row is about what happens when the floor can't be met."""
        return self.floor == TOO_MUCH


def _nncodec(qp: int) -> Rival:
    return Rival(f"NNCodec, qp {qp}", "nncodec", "nncodec_file.py", (str(qp),), transport=True)


RIVALS = (
    Rival("onnxruntime static int8", "onnxruntime", "ort_static.py"),
    Rival("onnxruntime static int8, signed activations", "onnxruntime", "ort_static.py", ("signed",)),
    Rival("onnxruntime dynamic int8", "onnxruntime", "ort_dynamic.py"),
    Rival("NNCF int8", "nncf", "nncf_static.py"),
    Rival("NNCF, accuracy control", "nncf", "nncf_control.py", ("0.1",), floor="0.1"),
    Rival("NNCF, accuracy control, asked too much", "nncf", "nncf_control.py", (TOO_MUCH,), floor=TOO_MUCH),
    Rival("Neural Compressor static int8", "neural-compressor-pt", "inc_static.py"),
    Rival("Neural Compressor, tuned", "neural-compressor-pt", "inc_static.py", ("0.1",), floor="0.1"),
    Rival(
        "Neural Compressor, tuned, asked too much", "neural-compressor-pt", "inc_static.py", (TOO_MUCH,),
        floor=TOO_MUCH,
    ),
    Rival("torchao PT2E int8", "torchao", "torchao_pt2e.py"),
    Rival("Torch-Pruning to half", "torch-pruning", "torch_pruning_half.py", models=CONVOLUTIONAL),
    Rival("Torch-Pruning to half + int8", "torch-pruning", "torch_pruning_half.py", ("int8",), CONVOLUTIONAL),
    *map(_nncodec, (-28, -24, -20, -16, -12)),
    Rival(
        "LC toolkit", "lc-toolkit",
        absent="not in the registry: `lc-toolkit` there is another project's, about liquid crystals",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Ours:
    """One run of the command line. `flags` are what the user adds to the model and its data."""

    name: str
    objective: str
    """size, packed or latency: which table it stands in."""
    floor: str
    flags: tuple[str, ...]
    models: tuple[str, ...] = EVERY
    asks_too_much: bool = False


def _size(floor: str, packed: bool = False) -> Ours:  # noqa: FBT001, FBT002 - two kinds of one row
    form = ("--format", "packed") if packed else ()
    flags = ("--objective", "size", "--target", "max", *form)
    return Ours(f"{'packed' if packed else 'size'}, floor {floor}", "packed" if packed else "size", floor, flags)


def _latency(floor: str) -> Ours:
    return Ours(f"latency, floor {floor}", "latency", floor, ("--objective", "latency", "--target", "max"))


OURS = (
    _size("0.1"),
    _latency("0.1"),
    _size("0.1", packed=True),
    _size("0.3", packed=True),
    _size("1", packed=True),
    Ours(
        "asked too much", "size", "0.1", ("--objective", "size", "--target", "100000x", "--budget", "none"),
        ("lenet5",), asks_too_much=True,
    ),
)  # fmt: skip
"""Floors: a rival's drop plus 0.1, at least 0.1; rivals of int8 lose next to nothing."""


def key(who: Rival | Ours) -> str:
    """Return the name of a row without its model."""
    return who.name if isinstance(who, Rival) else f"easycompress: {who.name}"


REASONS: dict[tuple[str, str], str] = {}
"""Why ours is behind, by (model, objective), where it has been looked into; shown only where it is."""

ALLOWED = 0.1
"""Points that our drop may be more than a rival's where the two are compared."""

BUSY = 1.5
"""Load average before a latency beyond which it doesn't speak: two cores, and the measurement is one of the load."""

AUGMENT = {"lenet5": (), "resnet20": ("--augment", "flip-crop"), "minilm": ()}
