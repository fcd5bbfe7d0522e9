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
    after: str = ""
    """The rival whose file this one begins with; its script and its seconds count too."""
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
    Rival(
        "Torch-Pruning to half + int8", "onnxruntime", "ort_static.py", models=CONVOLUTIONAL,
        after="Torch-Pruning to half",
    ),
    *map(_nncodec, (-36, -32, -28, -24, -20, -16, -12)),
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


def _ours(objective: str, target: str, floor: str, models: tuple[str, ...] = EVERY, budget: str | None = None) -> Ours:
    form = ("--format", "packed") if objective == "packed" else ()
    flags = ("--objective", "latency" if objective == "latency" else "size", "--target", target, *form)
    flags += ("--budget", budget) if budget else ()
    return Ours(f"{objective} {target}, floor {floor}", objective, floor, flags, models)


LENET5, RESNET20, MINILM = (("lenet5",), ("resnet20",), ("minilm",))

OURS = (
    _ours("size", "max", "0.1", CONVOLUTIONAL),
    _ours("size", "15x", "0.1", LENET5),
    _ours("size", "3.7x", "0.3", RESNET20),
    _ours("size", "8x", "1", RESNET20),
    _ours("size", "12x", "2", RESNET20),
    _ours("size", "4x", "1", MINILM),
    _ours("size", "6x", "1", MINILM, "none"),
    _ours("latency", "max", "0.1", LENET5),
    _ours("latency", "3x", "0.3", LENET5),
    _ours("latency", "1.3x", "0.3", RESNET20),
    _ours("latency", "max", "1", RESNET20),
    _ours("latency", "2x", "1", MINILM),
    _ours("packed", "20x", "0.1", LENET5),
    _ours("packed", "max", "0.1", LENET5),
    _ours("packed", "45x", "0.3", LENET5),
    _ours("packed", "50x", "0.5", LENET5),
    _ours("packed", "5.7x", "0.3", RESNET20),
    _ours("packed", "8.6x", "0.5", RESNET20),
    _ours("packed", "12x", "2", RESNET20),
    _ours("packed", "8.2x", "1", MINILM, "none"),
    _ours("packed", "12x", "1", MINILM, "none"),
    _ours("packed", "15x", "2", MINILM, "none"),
    Ours(
        "asked too much", "size", "0.1", ("--objective", "size", "--target", "100000x", "--budget", "none"),
        LENET5, asks_too_much=True,
    ),
)  # fmt: skip
"""Targets a little beyond what the rivals reach, or the most within a floor. Floors are judged on `select` with a
standard error on top, which at 0.1 points leaves 872 sentences or 5 000 photographs no room; the rivals have none, and
the comparison is made on the test split whatever the floor was."""


def key(who: Rival | Ours) -> str:
    """Return the name of a row without its model."""
    return who.name if isinstance(who, Rival) else f"easycompress: {who.name}"


_SAME_INTEGERS = "both are static int8 in the same kernels; faster means fewer channels or blocks, which need training"

_BY_CHANCE = "its file is larger than the float one, and five sentences of 1 821 came out right by chance"

REASONS: dict[tuple[str, str, str], str] = {
    ("lenet5", "onnxruntime static int8", "latency"): _SAME_INTEGERS,
    ("resnet20", "onnxruntime static int8", "latency"): _SAME_INTEGERS,
    ("resnet20", "NNCF int8", "latency"): _SAME_INTEGERS,
    ("minilm", "Neural Compressor static int8", "size"): _BY_CHANCE,
    ("minilm", "Neural Compressor, tuned", "size"): _BY_CHANCE,
    ("minilm", "NNCodec, qp -24", "packed"): (
        "its file, larger than our smallest, gains half a point, where its finer ones and its coarser ones gain "
        "nothing: a chance that no floor of ours asks for"
    ),
}
"""Why ours is behind, by (model, rival, objective), where it has been looked into; shown only where it is."""

ALLOWED = 0.1
"""Points that our drop may be more than a rival's where the two are compared."""

USELESS = 5.0
"""Points of drop beyond which a file is of no use, and nothing is compared with it."""

BUSY = 0.2
"""Cores that other processes may keep busy during a latency."""

AUGMENT = {"lenet5": (), "resnet20": ("--augment", "flip-crop"), "minilm": ()}
