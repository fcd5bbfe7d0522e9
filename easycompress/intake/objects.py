"""Python objects that hold data (loaders, data sets, tensors) -> a Split in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LABEL_COLUMNS = ("label", "labels", "fine_label", "target")
"""Names under which a column holds the targets, the first that is there wins."""

FORMS = "a DataLoader, a Dataset, a Hugging Face dataset or a tuple of tensors (inputs, targets)"

_BATCH = 256
"""Samples read at a time; the result doesn't depend on it."""

_PAIR = 2


def as_split(value: object, name: str) -> Split:
    """Read a data object into memory. `name` (train, validation, test) begins every error text.

    Inputs are kept as the model takes them, on the CPU: floats become float32, other types stay. Integer targets become
    int64, with (N, 1) flattened to (N,); others float32. Images in a Hugging Face dataset are scaled to 0..1, NCHW.
    Tensors may share memory with the caller's and are never written to. A loader that shuffles does so with a fixed
    seed, and torch's global generator is left as it was.

    Raises BadInput for other objects, dict inputs, a loader that raises, and more than images.MAX_BYTES.
    """
    if isinstance(value, dict):
        raise BadInput(f"{name}: a dict ({', '.join(map(str, list(value)[:5]))}); {_NO_DICTS}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if hasattr(value, "column_names") and hasattr(value, "__getitem__"):
            return _from_columns(value, name)
        if isinstance(value, Dataset):
            value = DataLoader(value, batch_size=_BATCH)
        if isinstance(value, DataLoader):
            return _from_batches(value, name)
    if isinstance(value, (Tensor, np.ndarray)):
        return _checked(as_inputs(value, name), None, name)
    if isinstance(value, (tuple, list)) and len(value) == _PAIR and isinstance(value[0], (Tensor, np.ndarray, dict)):
        inputs, targets = _parts(value, name)
        return _checked(inputs, targets, name)
    raise BadInput(f"{name}: a {type(value).__name__} can't be read as data; give {FORMS}")


_NO_DICTS = "dict inputs are not supported yet; give (inputs, targets) pairs of tensors, or inputs alone"


def as_inputs(value: object, name: str) -> Tensor:
    """Return inputs as a CPU tensor: floats as float32, other types unchanged."""
    tensor = _tensor(value, "inputs", name)
    if tensor.ndim == 0:
        raise BadInput(f"{name}: inputs are a single number; the first dimension counts the samples")
    return tensor.float() if tensor.is_floating_point() else tensor


def as_targets(value: object, name: str) -> Tensor:
    """Return targets as a CPU tensor: integers and booleans as int64, with (N, 1) flattened to (N,); else float32."""
    tensor = _tensor(value, "targets", name)
    if tensor.is_floating_point():
        return tensor.float()
    if tensor.ndim == _PAIR and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    return tensor.long()


def _tensor(value: object, what: str, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadInput(f"{name}: {what} are uneven: {one_line(error)}; pad them to one shape") from error
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{name}: {what} are a {type(value).__name__} of {array.dtype}, not numbers; give a tensor")
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _checked(inputs: Tensor, targets: Tensor | None, name: str) -> Split:
    if len(inputs):
        images.refuse_too_large(len(inputs), inputs[0].nbytes, name)
    return Split(inputs, targets)


def _from_batches(loader: Iterable[object], name: str) -> Split:
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    read = 0
    for batch in _batches(loader, name):
        x, y = _parts(batch, name)
        if not inputs and len(x):
            images.refuse_too_large(_count(loader, len(x)), x.nbytes // len(x), name)
        read += len(x)
        images.refuse_too_large(read, x.nbytes // max(len(x), 1), name)
        _require_alike(inputs, x, "samples", name)
        inputs.append(x)
        if y is not None:
            _require_alike(targets, y, "targets", name)
            targets.append(y)
    if not inputs:
        raise BadInput(f"{name}: the loader gave no batch; give at least one sample, or leave {name} away")
    return Split(torch.cat(inputs), torch.cat(targets) if targets else None)


def _require_alike(before: Sequence[Tensor], batch: Tensor, what: str, name: str) -> None:
    if before and batch.shape[1:] != before[0].shape[1:]:
        first, other = tuple(before[0].shape[1:]), tuple(batch.shape[1:])
        raise BadInput(f"{name}: {what} of shape {first} and of {other}; pad or resize them to one shape")


def _batches(loader: Iterable[object], name: str) -> Iterator[object]:
    try:
        yield from loader
    except Exception as error:
        raise BadInput(
            f"{name}: reading the data raised {type(error).__name__}: {one_line(error)}; mend the loader"
        ) from error


def _count(loader: object, first: int) -> int:
    """Return about how many samples a loader will give; `first` when it can't tell (iterable data sets)."""
    try:
        return first * len(loader)  # type: ignore[arg-type] # not every loader has a length
    except (TypeError, NotImplementedError):
        return first


def _parts(batch: object, name: str) -> tuple[Tensor, Tensor | None]:
    """Return (inputs, targets) of a batch that is a pair, or inputs alone."""
    if isinstance(batch, (tuple, list)):
        if len(batch) > _PAIR:
            raise BadInput(f"{name}: batches of {len(batch)} parts; give (inputs, targets), one tensor each")
        inputs, targets = (batch[0] if batch else None), (batch[1] if len(batch) == _PAIR else None)
    else:
        inputs, targets = batch, None
    if isinstance(inputs, dict) or isinstance(targets, dict):
        raise BadInput(f"{name}: batches hold a dict; {_NO_DICTS}")
    return as_inputs(inputs, name), None if targets is None else as_targets(targets, name)


def _from_columns(dataset: Any, name: str) -> Split:  # noqa: ANN401 - duck-typed: `datasets` is not imported
    """Read a Hugging Face dataset: the first column that holds no label is the input."""
    if not hasattr(dataset, "__len__"):
        raise BadInput(f"{name}: a streamed dataset has no rows to count; load it without streaming=True")
    columns = dataset.column_names
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    others = [column for column in columns if column not in LABEL_COLUMNS]
    if isinstance(columns, dict) or not others:
        listed = ", ".join(map(str, columns))
        raise BadInput(f"{name}: a dataset of {listed}; give one split of one that has an input column")
    column, total = others[0], len(dataset)
    if not total:
        raise BadInput(f"{name}: the dataset has no rows; give at least one sample, or leave {name} away")
    values: list[np.ndarray[Any, Any]] = []
    labels: list[object] = []
    for rows in _batches((dataset[start : start + _BATCH] for start in range(0, total, _BATCH)), name):
        for cell in rows[column]:  # type: ignore[index] # rows are a dict of columns
            values.append(_cell(cell, f"{name} row {len(values)}", column))
            if len(values) == 1:
                images.refuse_too_large(total, 4 * values[0].size, name)
            if values[-1].ndim != values[0].ndim or values[-1].shape != values[0].shape:
                _uneven(values, name, column)
        if label is not None:
            labels.extend(rows[label])  # type: ignore[index] # rows are a dict of columns
    targets = None if label is None else as_targets(labels, name)
    return Split(_stacked(values, name), targets)


def _cell(cell: object, where: str, column: str) -> np.ndarray[Any, Any]:
    if isinstance(cell, Image.Image):
        return images.decode(images.Picture(cell, where))
    if isinstance(cell, (str, dict, type(None))):
        raise BadInput(
            f"{where}: column {column} holds a {type(cell).__name__}; inputs are images, numbers or lists of numbers"
        )
    return np.asarray(cell)


def _uneven(values: Sequence[np.ndarray[Any, Any]], name: str, column: str) -> None:
    """Raise BadInput when the last value differs from the first; grey images among colour ones may."""
    first, last = values[0], values[-1]
    row = f"row {len(values) - 1}"
    if _is_picture(first) and _is_picture(last):
        images.require_same_size(first, "row 0", last, row, name)
        return
    raise BadInput(f"{name} {row}: column {column} has shape {last.shape}, row 0 {first.shape}; pad them to one shape")


def _is_picture(value: np.ndarray[Any, Any]) -> bool:
    """Whether a value looks like decoded pixels: uint8, (H, W) or (H, W, 3)."""
    return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[-1] == 3))  # noqa: PLR2004


def _stacked(values: Sequence[np.ndarray[Any, Any]], name: str) -> Tensor:
    if all(map(_is_picture, values)):
        return images.stack(values, colour=any(value.ndim == 3 for value in values))  # noqa: PLR2004 - (H, W, 3)
    return images.from_array(np.stack(values), name)
