"""Python objects that hold data (loaders, data sets, tensors) -> a Split in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, described, joined, parts
from easycompress.core.task import Split
from easycompress.intake import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from easycompress.core.inputs import Inputs

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "targets")
"""Names under which a column or a dict's key holds the targets, the first that is there wins."""

MODEL_COLUMNS = (
    "input_ids", "attention_mask", "token_type_ids", "position_ids", "bbox", "pixel_values", "pixel_mask",
    "input_values", "input_features", "decoder_input_ids", "decoder_attention_mask",
)  # fmt: skip
"""Columns that tokenizers and processors make. Where a dataset has any, these are the inputs, several by keyword."""

FORMS = (
    "a DataLoader, a Dataset, a Hugging Face dataset, a tuple of tensors (inputs, targets) or a dict of tensors with "
    "labels; inputs of several tensors are a tuple or, by keyword, a dict"
)

_BATCH = 256
"""Samples read at a time; the result doesn't depend on it."""

_PAIR = 2


def as_split(value: object, name: str) -> Split:
    """Read a data object into memory. `name` (train, validation, test) begins every error text.

    A batch, or the whole split, is (inputs, targets), inputs alone, or a dict of the model's keywords with the targets
    among them under one of LABEL_COLUMNS. Inputs of several tensors are a tuple (passed in order) or a dict (passed by
    keyword): ((a, b), targets), ({"input_ids": a, "attention_mask": b}, targets).
    Inputs are kept as the model takes them, on the CPU: floats become float32, other types stay. Integer targets become
    int64, with (N, 1) flattened to (N,); others float32. Images in a Hugging Face dataset are scaled to 0..1, NCHW.
    Tensors may share memory with the caller's and are never written to. A loader that shuffles does so with a fixed
    seed, and torch's global generator is left as it was.

    Raises BadInput for other objects, a loader that raises, and more than images.MAX_BYTES.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if hasattr(value, "column_names") and hasattr(value, "__getitem__"):
            return _from_columns(value, name)
        if isinstance(value, Dataset):
            value = DataLoader(value, batch_size=_BATCH)
        if isinstance(value, DataLoader):
            return _from_batches(value, name)
    pair = isinstance(value, (tuple, list)) and len(value) == _PAIR and _is_inputs(value[0])
    if pair or isinstance(value, (Tensor, np.ndarray, Mapping)):
        inputs, targets = _parts(value, name)
        return _checked(inputs, targets, name)
    raise BadInput(f"{name}: a {type(value).__name__} can't be read as data; give {FORMS}")


def _is_inputs(value: object) -> bool:
    """Tell whether this can only be inputs: arrays, not nested lists of numbers."""
    several = isinstance(value, (tuple, list)) and all(isinstance(part, (Tensor, np.ndarray)) for part in value)
    return (several and bool(value)) or isinstance(value, (Tensor, np.ndarray, Mapping))


def as_inputs(value: object, name: str) -> Inputs:
    """Return inputs as CPU tensors, floats as float32, other types unchanged: a dict's by keyword, a tuple's in order.

    A list is a tuple where it holds arrays.
    """
    if isinstance(value, Mapping):
        if not value:
            raise BadInput(f"{name}: a dict without inputs; give the model's arguments by name")
        return Bundle(
            tuple(_input(part, f"{name}: {key}") for key, part in value.items()), tuple(str(key) for key in value)
        )
    if isinstance(value, (tuple, list)) and _is_inputs(value):
        return Bundle(tuple(_input(part, f"{name}: input {i}") for i, part in enumerate(value)))
    return _input(value, name)


def _input(value: object, name: str) -> Tensor:
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
    shape = array.shape  # which np.ascontiguousarray changes where it is ()
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _checked(inputs: Inputs, targets: Tensor | None, name: str) -> Split:
    if len(inputs):
        images.refuse_too_large(len(inputs), _bytes(inputs) // len(inputs), name)
    return Split(inputs, targets)


def _bytes(inputs: Inputs) -> int:
    return sum(tensor.nbytes for tensor in parts(inputs))


def _from_batches(loader: Iterable[object], name: str) -> Split:
    inputs: list[Inputs] = []
    targets: list[Tensor] = []
    read = 0
    for batch in _batches(loader, name):
        x, y = _parts(batch, name)
        if not inputs and len(x):
            images.refuse_too_large(_count(loader, len(x)), _bytes(x) // len(x), name)
        read += len(x)
        images.refuse_too_large(read, _bytes(x) // max(len(x), 1), name)
        _require_alike(inputs, x, "samples", name)
        inputs.append(x)
        if y is not None:
            _require_alike(targets, y, "targets", name)
            targets.append(y)
    if not inputs:
        raise BadInput(f"{name}: the loader gave no batch; give at least one sample, or leave {name} away")
    return Split(joined(inputs), torch.cat(targets) if targets else None)


def _require_alike(before: Sequence[Inputs], batch: Inputs, what: str, name: str) -> None:
    if before and described(batch) != described(before[0]):
        first, other = described(before[0]), described(batch)
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


def _parts(batch: object, name: str) -> tuple[Inputs, Tensor | None]:
    """Return (inputs, targets) of a batch that is a pair, a dict, or inputs alone."""
    targets: object = None
    if isinstance(batch, (tuple, list)):
        if len(batch) > _PAIR:
            raise BadInput(
                f"{name}: batches of {len(batch)} parts; give (inputs, targets): inputs of several tensors are a tuple "
                "or a dict, as in ((a, b), targets)"
            )
        inputs, targets = (batch[0] if batch else None), (batch[1] if len(batch) == _PAIR else None)
    elif isinstance(batch, Mapping):
        label = next((key for key in LABEL_COLUMNS if key in batch), None)
        inputs = {key: value for key, value in batch.items() if key != label}
        targets = None if label is None else batch[label]
    else:
        inputs = batch
    if isinstance(targets, Mapping):
        raise BadInput(f"{name}: targets are a dict; give one tensor of targets")
    return as_inputs(inputs, name), None if targets is None else as_targets(targets, name)


def _from_columns(dataset: Any, name: str) -> Split:  # noqa: ANN401 - duck-typed: `datasets` is not imported
    """Read a Hugging Face dataset: MODEL_COLUMNS by keyword, else the first column that holds no label."""
    if not hasattr(dataset, "__len__"):
        raise BadInput(f"{name}: a streamed dataset has no rows to count; load it without streaming=True")
    columns = dataset.column_names
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    others = [column for column in columns if column not in LABEL_COLUMNS]
    if isinstance(columns, dict) or not others:
        listed = ", ".join(map(str, columns))
        raise BadInput(f"{name}: a dataset of {listed}; give one split of one that has an input column")
    total = len(dataset)
    chosen = [column for column in MODEL_COLUMNS if column in columns] or others[:1]
    if not total:
        raise BadInput(f"{name}: the dataset has no rows; give at least one sample, or leave {name} away")
    cells: dict[str, list[np.ndarray[Any, Any]]] = {column: [] for column in chosen}
    labels: list[object] = []
    for rows in _batches((dataset[start : start + _BATCH] for start in range(0, total, _BATCH)), name):
        for column, values in cells.items():
            _gather(rows[column], values, total, name, column)  # type: ignore[index] # rows are a dict of columns
        if label is not None:
            labels.extend(rows[label])  # type: ignore[index] # rows are a dict of columns
    targets = None if label is None else as_targets(labels, name)
    tensors = tuple(_stacked(values, name) for values in cells.values())
    return Split(Bundle(tensors, tuple(chosen)) if len(tensors) > 1 else tensors[0], targets)


def _gather(
    column_cells: Iterable[object], values: list[np.ndarray[Any, Any]], total: int, name: str, column: str
) -> None:
    """Add a column's cells to `values`, all of one shape."""
    for cell in column_cells:
        values.append(_cell(cell, f"{name} row {len(values)}", column))
        if len(values) == 1:
            images.refuse_too_large(total, 4 * values[0].size, name)
        if values[-1].ndim != values[0].ndim or values[-1].shape != values[0].shape:
            _uneven(values, name, column)


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
