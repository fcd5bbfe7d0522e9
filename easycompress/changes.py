"""What became of a model, layer by layer and action by action: read from the original's file and the delivered one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from torch import nn

from easycompress.artifact.large import copied
from easycompress.artifact.write import PACKED
from easycompress.core.errors import EasyCompressError
from easycompress.core.ledger import spending
from easycompress.core.outcome import Changes, Course, LayerChange, LayerState
from easycompress.executor.journal import stage_file
from easycompress.executor.replay import load
from easycompress.measure.compute import macs_by_operator
from easycompress.measure.decoded import decoded
from easycompress.measure.latency import PATIENCE, time_files
from easycompress.measure.ownership import Ownership, ownership
from easycompress.measure.profile import NORMALISATIONS, RECURRENT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from easycompress.core.outcome import Measurement
    from easycompress.core.profile import ModelProfile
    from easycompress.executor.attempt import Attempt
    from easycompress.executor.executed import Executed
    from easycompress.executor.journal import Journal
    from easycompress.prepare import Prepared

ORIGIN = "_easycompress_origin"
"""The attribute under which a module remembers its name in the original: lists of layers are renumbered."""

MOST_WEIGHTS = 150_000_000
"""Models with more are not told layer by layer: their weights would be held several times over."""

ROUNDS = 2
"""Of a measurement of latency, for what was only half way."""

SETTLING = 0.5
"""Seconds that loading a file and its first runs take, generously."""

SLOWEST = 50.0
"""Milliseconds of one run from which on models half way aren't timed."""

OVERRUN_SHARE, OVERRUN_SECONDS = 0.05, 30.0
"""Half of what a run may overrun its budget by."""

RANK = re.compile(r"low[- ]rank (?:r=)?(\d+)")

FOLDED = "folded into its neighbour"
"""The form of a batch norm whose factors the file's other weights hold."""

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

PRODUCTS = "(products)"
"""What the profile calls products of activations, which no layer's weights take part in."""


@spending("report")
def changes(
    prepared: Prepared, executed: Executed, journal: Journal, out: Path, measured: tuple[Measurement, Measurement]
) -> Changes:
    """Return what became of the model whose files are in OUT; `measured` is the original and the delivered file."""
    final = out / "model.onnx"
    counted = final.with_suffix(PACKED) if prepared.goal.format == "packed" else final
    return Changes(
        layers=layer_changes(prepared, final, counted), course=course(prepared, executed, journal, final, measured)
    )


def layer_changes(prepared: Prepared, final: Path, counted: Path) -> tuple[LayerChange, ...]:
    """Return the layers of the profile before and after, in order; those that can't be told for sure are left out.

    `final` is the delivered .onnx file in OUT, `counted` the file whose bytes count: itself or the packed one. What
    of a file no layer owns (operators, shapes, ranges of activations) is its size minus the sum over the layers.
    """
    if prepared.described is not None or prepared.profile.params > MOST_WEIGHTS:
        return ()
    try:
        return _compared(prepared, final, counted)
    except (EasyCompressError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, AttributeError):
        return ()  # it is for the eye: a graph of a shape that nobody has thought of must not cost a result


def _compared(prepared: Prepared, final: Path, counted: Path) -> tuple[LayerChange, ...]:
    original, profile = prepared.task.model, prepared.profile
    fresh = copied(original)
    for name, module in fresh.named_modules():
        setattr(module, ORIGIN, name)
    before = _layers(original, prepared.baseline, profile)
    after = _layers(load(final.parent, lambda: fresh), counted, profile)
    return tuple(
        LayerChange(name=layer.name, type=layer.type, before=state, after=after[layer.name])
        for layer in profile.layers
        if (state := before.get(layer.name)) is not None and layer.name in after and _tells(state, after[layer.name])
    )


def _tells(before: LayerState, after: LayerState | None) -> bool:
    """Leave out batch norms that both files have folded away: nothing of them is stored or computed."""
    return before.form != FOLDED or (after is not None and after.form != FOLDED)


def course(
    prepared: Prepared, executed: Executed, journal: Journal, final: Path, measured: tuple[Measurement, Measurement]
) -> tuple[Course, ...]:
    """Return what the original, each action of the chosen attempt and the delivered file came to, as written files.

    The first and the last have the report's own numbers, `measured`. A latency in between is the original's times the
    ratio to it in a run in which both files took turns.
    """
    before, after = measured
    best = executed.best
    ends = [
        Course(action=name, size_bytes=each.size_bytes, latency=_single(each))
        for name, each in (("original", before), (best.stages[-1].action if best is not None else "", after))
    ]
    if best is None:
        return (ends[0],)
    paths = [_stage(journal, best, place) for place in range(1, len(best.stages))]
    written = {path: step.action for path, step in zip(paths, best.stages, strict=False) if path.exists()}
    ratios = _ratios(prepared, list(written), journal, final, ends[0].latency)
    between = []
    for path, action in written.items():
        packed = path.with_suffix(PACKED)
        size = (packed if packed.exists() else path).stat().st_size
        single = ends[0].latency
        latency = single * ratios[path] if single is not None and path in ratios else None
        between.append(Course(action=action, size_bytes=size, latency=latency))
    return (ends[0], *between, ends[1])


def _stage(journal: Journal, best: Attempt, place: int) -> Path:
    """Return the file of what the first `place` actions made: of the attempt itself, or of the one it goes on from."""
    own = journal.path(stage_file(best.tag, place))
    return own if own.exists() or not best.goes_on else journal.path(stage_file(best.goes_on, place))


def _single(measurement: Measurement) -> float | None:
    """Return the median latency of one sample in ms, where it was measured."""
    return next((latency.median for latency in measurement.latency_ms if latency.batch == 1), None)


def _ratios(
    prepared: Prepared, paths: list[Path], journal: Journal, final: Path, single: float | None
) -> dict[Path, float]:
    """Return how the latency of files relates to the original's; nothing where that would take too long."""
    budget = prepared.budget
    seconds = ROUNDS * (PATIENCE + SETTLING) * (len(paths) + 2)
    late = budget.kind == "time" and journal.elapsed() + seconds > budget.value * (1 + OVERRUN_SHARE) + OVERRUN_SECONDS
    if not paths or single is None or single > SLOWEST or late:
        return {}
    shapes = {path: _shape(path) for path in (prepared.baseline, *paths)}
    timed = list({shapes[path]: path for path in (*paths, prepared.baseline)}.values())  # of equals the last
    files = [prepared.baseline, final, *(path for path in timed if path != prepared.baseline)]
    times = time_files(files, prepared.task.example, 1, prepared.threads, ROUNDS)
    ratios = {shapes[path]: time.median / times[0].median for path, time in zip(files[2:], times[2:], strict=True)}
    return {path: ratios.get(shapes[path], 1.0) for path in paths}


def _shape(path: Path) -> bytes:
    """Return what the time of a file depends on: its graph with the weights' shapes, but not their values.

    Training moves values alone, and would seem to cost or save time by the noise of two measurements.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    for tensor in graph.initializer:
        del tensor.external_data[:]
        tensor.raw_data = b""
    return bytes(graph.SerializeToString(deterministic=True))


@dataclass
class _Layer:
    """What is known of one layer of the original in one file, and the modules that it has become there, by path.

    `told` is False where a matrix of it was not found, `found` counts the numbers of those that were. `forms` are
    stored forms with the bytes that each takes.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    told: bool = True
    found: int = 0
    params: int = 0
    bytes: int = 0
    macs: int = 0
    forms: dict[str, int] = field(default_factory=dict)

    def state(self, *, folds: bool) -> LayerState | None:
        """Return what it is now; None where it isn't told. `folds`: the file has no batch norm, they are folded."""
        norms = bool(self.modules) and all(isinstance(module, NORMALISATIONS) for module in self.modules.values())
        if not self.told or self.params < self.found or not (self.forms or self.macs or (norms and folds)):
            return None
        widths = [width for module in self.modules.values() if (width := _outputs(module)) is not None]
        form = max(self.forms, key=lambda name: self.forms[name]) if self.forms else FOLDED if self.modules else ""
        coded = RANK.search(form)
        rank = int(coded[1]) if coded else widths[0] if len(widths) > 1 else None
        bits = 8 * self.bytes / self.params if self.params else 0.0
        return LayerState(
            outputs=widths[-1] if widths else None,
            rank=rank,
            params=self.params,
            macs=self.macs,
            bytes=self.bytes,
            bits=round(bits, 4),
            form=form,
        )


def _layers(model: nn.Module, path: Path, profile: ModelProfile) -> dict[str, LayerState | None]:
    """Return each layer of the original in a file of `model`: None for one that is gone; those not told are missing."""
    parameters = dict(model.named_parameters())
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    owned = ownership(path, parameters | buffers)
    layers = {layer.name: _Layer() for layer in profile.layers}
    homes = {name: home for name, _ in model.named_modules() if (home := _home(model, name, layers)) is not None}
    for name, parameter in parameters.items():
        owner = name.rpartition(".")[0]
        if owner in homes:
            layer = layers[homes[owner]]
            layer.modules[owner] = model.get_submodule(owner)
            if parameter.dim() > 1:
                layer.told &= name in owned.known
                layer.found += owned.known.get(name, 0)
    _add_bytes(owned, layers, homes)
    _add_operations(owned, layers, homes)
    folds = all(node.op_type != "BatchNormalization" for node in owned.graph.graph.node)
    found: dict[str, LayerState | None] = {}
    for name, layer in layers.items():
        state = layer.state(folds=folds)
        if state is not None or (not layer.modules and name != PRODUCTS):
            found[name] = state
    return found


def _home(model: nn.Module, name: str, layers: Mapping[str, _Layer]) -> str | None:
    """Return the layer of the original that a module is, or is a part of: the nearest one that encloses it."""
    path, rest = name, ""
    while path and not hasattr(model.get_submodule(path), ORIGIN):
        path, _, last = path.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
    origin = ".".join(part for part in (getattr(model.get_submodule(path), ORIGIN, ""), rest) if part)
    while origin and origin not in layers:
        origin = origin.rpartition(".")[0]
    return origin if origin in layers and (origin or not name) else None


def _add_bytes(owned: Ownership, layers: Mapping[str, _Layer], homes: Mapping[str, str]) -> None:
    """Count the stored tensors at their layers; one that several layers read is divided among them evenly."""
    for holding in owned.holdings:
        found = [layers[home] for home in dict.fromkeys(homes[name] for name in holding.layers if name in homes)]
        row, count = holding.row, len(found)
        for index, layer in enumerate(found):
            size = (index + 1) * row.bytes // count - index * row.bytes // count
            layer.bytes += size
            if holding.counts:
                layer.params += (index + 1) * row.weights // count - index * row.weights // count
                form = f"{row.form}, shared by {count} layers" if count > 1 else row.form
                layer.forms[form] = layer.forms.get(form, 0) + size


def _add_operations(owned: Ownership, layers: Mapping[str, _Layer], homes: Mapping[str, str]) -> None:
    """Count the operations at their layers."""
    for row in macs_by_operator(decoded(owned.graph)):
        home = homes.get(owned.operators[row.output]) if row.output in owned.operators else None
        if home is None and row.output in owned.free:
            home = PRODUCTS
        if home is not None and home in layers:
            layers[home].macs += row.macs


def _outputs(module: nn.Module) -> int | None:
    """Return how many channels, neurons or units a module answers with."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
    if isinstance(module, RECURRENT):
        return next((shape[-1] for name, shape in shapes.items() if name.startswith("weight_hh")), None)
    weight = shapes.get("weight")
    if weight is None:
        return None
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return weight[-1]
    if isinstance(module, TRANSPOSED):
        return weight[1] * module.groups
    return weight[0]
