"""Which thinner layers could stand for which layer: what each saves, and what it costs in quality."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.core.inputs import answer, call
from easycompress.lc.factor import replace_layer, splits
from easycompress.lc.ranks.decompose import Seen, fitted, thinner
from easycompress.lc.ranks.timing import seconds_of
from easycompress.training.terms import soft_loss

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs
    from easycompress.lc.ranks.settings import LowRankLayers, Scheme

SHARES = (0.15, 0.25, 0.35, 0.5, 0.65, 0.8)
"""Ranks that are tried, as shares of the one at which a replacement costs as much as the layer."""

ROWS = 20_000
"""Samples times places of one layer that its statistics are taken on."""

FASTER = 0.95
"""A replacement must take at most this share of a layer's time: two measurements of one differ by a few percent."""


@dataclass(frozen=True)
class Candidate:
    """Layers that could stand for the layer `name`: `saved` in the gain's unit, `harm` in the loss of the model."""

    name: str
    scheme: Scheme
    ranks: tuple[int, ...]
    saved: float
    harm: float


@torch.no_grad()
def see(model: nn.Module, inputs: Inputs) -> dict[str, Seen]:
    """Run `model` once and return what each layer saw that low rank could replace.

    Left out are layers that run twice, and those that share their weight with another.
    """
    seen: dict[str, list[Seen]] = {}
    handles = []
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for name, layer in _modules(model):
        if name and splits(layer) and uses[id(layer.weight)] == 1 and min(layer.weight.shape[:2]) > 1:
            kept = seen.setdefault(name, [])
            handles.append(
                layer.register_forward_hook(lambda _, given, made, kept=kept: kept.append(_few(given, made)))
            )
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: kept[0] for name, kept in seen.items() if len(kept) == 1}


def _modules(model: nn.Module) -> list[tuple[str, Any]]:
    return list(model.named_modules())


def _few(given: tuple[Tensor, ...], made: Tensor) -> Seen:
    places = max(1, made.numel() // (len(made) * made.shape[1])) if made.dim() > 2 else 1  # noqa: PLR2004 - (N, C)
    count = max(2, ROWS // places)
    return Seen(given[0][:count].float(), made[:count].float())


@torch.no_grad()
def candidates(model: nn.Module, inputs: Inputs, action: LowRankLayers) -> list[list[Candidate]]:
    """Return each layer's useful replacements, by growing saving; layers without any are left out.

    The harm of one is its squared relative error on the layer's outputs, times what the model's answers (their
    divergence from the original's, in nats) suffer for each unit of error, measured once a layer by putting one in.
    """
    before = answer(model, inputs)
    found = []
    for name, seen in see(model, inputs).items():
        layer = model.get_submodule(name)
        rows = [c for scheme in action.schemes for c in _of_layer(name, layer, scheme, seen, action)]
        if not rows:
            continue
        trial = min(rows, key=lambda c: abs(c.saved - 0.5 * max(r.saved for r in rows)))
        replace_layer(model, name, fitted(layer, trial.scheme, trial.ranks, seen))
        divergence = _suffered(model, inputs, before)
        replace_layer(model, name, layer)
        if divergence is None:
            continue
        weight = divergence / max(trial.harm, 1e-12)
        weighted = [Candidate(c.name, c.scheme, c.ranks, c.saved, c.harm * weight) for c in rows]
        found.append(sorted(weighted, key=lambda c: c.saved))
    return found


def _suffered(model: nn.Module, inputs: Inputs, before: Tensor) -> float | None:
    """Return how far the model's answers have moved; None where it doesn't run, as it looks into the layer itself."""
    try:
        return float(_divergence(answer(model, inputs), before))
    except Exception:  # noqa: BLE001 - whatever the forward raises
        return None


def _divergence(outputs: Tensor, before: Tensor) -> Tensor:
    if outputs.dim() == 2 and outputs.shape[1] > 1:  # noqa: PLR2004 - logits (N, C)
        return soft_loss(outputs.float(), before.float(), 1.0).clamp_min(0)
    return (outputs - before).float().square().mean() / before.float().square().mean().clamp_min(1e-12)


def _of_layer(name: str, layer: nn.Module, scheme: Scheme, seen: Seen, action: LowRankLayers) -> list[Candidate]:
    """Return what saves something; `harm` is the squared error relative to the outputs' variance."""
    shape = tuple(seen.inputs.shape[1:])
    places = 1 if isinstance(layer, nn.Linear) else seen.outputs[0, 0].numel()
    batch = action.batch
    whole = seconds_of(nn.Sequential(layer), shape, batch) if action.gain == "latency" else 0.0
    spread = (seen.outputs - seen.outputs.mean(0)).square().sum().clamp_min(1e-12)
    rows = []
    for ranks in _ranks(layer, scheme, action.round_to):
        frame = thinner(layer, scheme, ranks)
        if action.gain == "latency":
            saved = whole - seconds_of(frame, shape, batch)
            useful = saved > (1 - FASTER) * whole
        else:
            saved = float(_macs(layer, scheme, None, places) - _macs(layer, scheme, ranks, places))
            useful = saved > 0
        if useful:
            error = float((fitted(layer, scheme, ranks, seen)(seen.inputs) - seen.outputs).square().sum() / spread)
            rows.append(Candidate(name, scheme, ranks, saved, error))
    return rows


def _ranks(layer: nn.Module, scheme: Scheme, step: int) -> list[tuple[int, ...]]:
    """Return the ranks to try, rounded down to multiples of `step`."""
    if isinstance(layer, nn.Linear):
        if scheme != "scheme-1":
            return []
        even = layer.in_features * layer.out_features / (layer.in_features + layer.out_features)
        return _stepped([even * share for share in SHARES], step)
    assert isinstance(layer, nn.Conv2d)  # noqa: S101 - splits
    into, out, area = layer.in_channels, layer.out_channels, layer.kernel_size[0] * layer.kernel_size[1]
    if area == 1 and scheme != "scheme-1":
        return []
    if scheme == "tucker":
        pairs = [(_round(into * s**0.5, step), _round(out * s**0.5, step)) for s in SHARES]
        return list(dict.fromkeys(pair for pair in pairs if min(pair) > 0))
    height, width = layer.kernel_size
    if scheme == "scheme-1":
        even = into * area * out / (into * area + out)
    else:
        even = into * area * out / (into * width * layer.stride[0] + out * height)
    return _stepped([even * share for share in SHARES], step)


def _stepped(ranks: list[float], step: int) -> list[tuple[int, ...]]:
    rounded = [_round(rank, step) for rank in ranks]
    return [(rank,) for rank in dict.fromkeys(rounded) if rank > 0]


def _round(rank: float, step: int) -> int:
    return int(rank) // step * step


def _macs(layer: Any, scheme: Scheme, ranks: tuple[int, ...] | None, places: int) -> int:  # noqa: ANN401 - Linear or Conv2d
    """Return the multiply-accumulates a sample of a layer, or of what stands for it; `places` are its outputs'."""
    if ranks is None:
        return int(layer.weight.numel()) * places
    frame: Any = thinner(layer, scheme, ranks)
    if isinstance(layer, nn.Linear):
        return sum(int(part.weight.numel()) for part in frame) * places
    down, across = layer.stride
    # What stands before the strided part works on the whole picture: Tucker's first layer, and the (1, w) convolution
    # of scheme 2, which moves in steps across but not down.
    before = {"scheme-1": 1, "scheme-2": down, "tucker": down * across}[scheme]
    first, *rest = (int(part.weight.numel()) for part in frame)
    return int(first * before + sum(rest)) * places
