"""Layer by layer, before and after: the rows of a table, each with two small bars of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.report import svg, units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from easycompress.core.outcome import LayerChange

WIDTH, HEIGHT = 72, 18
"""Size in px of the drawing of one layer's bytes."""


@dataclass(frozen=True)
class Cell:
    """A number after and before, as text, and the number to sort by. `was` is empty where nothing changed."""

    text: str
    was: str
    value: float | None


@dataclass(frozen=True)
class Row:
    """One layer. `gone`: it is no longer there."""

    name: str
    type: str
    gone: bool
    cells: tuple[Cell, ...]
    form: Cell
    bars: Markup


@dataclass(frozen=True)
class Layers:
    """The table: the names of its columns of numbers, its rows, and the sums of the last two columns."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    sums: tuple[Cell, ...]


GONE = "\u2013"


def table(layers: Sequence[LayerChange]) -> Layers | None:
    """Return the table of a model's layers; None where nobody looked."""
    if not layers:
        return None
    ranked = any(state is not None and state.rank is not None for each in layers for state in (each.before, each.after))
    most = max(max(each.before.bytes, each.after.bytes if each.after else 0) for each in layers)
    heads = ("Outputs", *(("Rank",) if ranked else ()), "Bits", "Bytes", "MACs")
    rows = tuple(_row(each, most, ranked=ranked) for each in layers)
    before = [each.before for each in layers]
    after = [each.after for each in layers if each.after is not None]
    sums = (
        _cell(sum(state.bytes for state in before), sum(state.bytes for state in after), units.count),
        _cell(sum(state.macs for state in before), sum(state.macs for state in after), units.macs),
    )
    return Layers(heads, rows, sums)


def elsewhere(layers: Sequence[LayerChange], before: int, after: int) -> Cell | None:
    """Return the bytes of both files that no layer owns; None where the layers hold more than the files."""
    rest = before - sum(each.before.bytes for each in layers)
    left = after - sum(each.after.bytes for each in layers if each.after is not None)
    return _cell(rest, left, units.count) if layers and min(rest, left) >= 0 else None


def _row(layer: LayerChange, most: int, *, ranked: bool) -> Row:
    before, after = layer.before, layer.after
    cells = [_cell(before.outputs, after.outputs if after else None, units.count)]
    if ranked:
        cells.append(_cell(before.rank, after.rank if after else None, units.count))
    cells += [
        _cell(before.bits, after.bits if after else None, units.number),
        _cell(before.bytes, after.bytes if after else None, units.count),
        _cell(before.macs, after.macs if after else None, units.macs),
    ]
    form = after.form if after else "gone"
    return Row(
        layer.name,
        layer.type,
        after is None,
        tuple(cells),
        Cell(form, before.form if before.form != form else "", None),
        _bars(layer, most),
    )


def _cell(before: float | None, after: float | None, shown: Callable[[float | None], str]) -> Cell:
    """Return a cell that sorts by what it is now."""
    text = GONE if after is None else shown(after)
    was = "" if before is None else shown(before)
    return Cell(text, "" if was == text else was, None if after is None else float(after))


def _bars(layer: LayerChange, most: int) -> Markup:
    """Draw a layer's bytes before and after, on the scale of the largest layer."""
    scale = WIDTH / max(most, 1)
    before, after = layer.before.bytes, layer.after.bytes if layer.after else 0
    parts = [svg.box(0, 2, max(before * scale, 1 if before else 0), 6, "before")]
    parts.append(svg.box(0, 10, max(after * scale, 1 if after else 0), 6, "after"))
    told = f"{units.count(before)} bytes before, {units.count(after)} after"
    return svg.drawing((WIDTH, HEIGHT), f"Bytes of {layer.name}", told, parts, "small")
