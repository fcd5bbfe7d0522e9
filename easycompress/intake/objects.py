"""Python objects that hold data (loaders, data sets, tensors) -> a Split in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, described, like, parts
from easycompress.core.task import Split
from easycompress.intake import images
from easycompress.intake.columns import LABEL_COLUMNS, MODEL_COLUMNS
from easycompress.intake.stored import Growing, refuse_too_large

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easycompress.core.inputs import Inputs

FORMS = (
    "a DataLoader, a Dataset, a Hugging Face dataset, a tuple of tensors (inputs, targets) or a dict of tensors with "
    "labels, or an iterator of such batches; inputs of several tensors are a tuple or, by keyword, a dict"
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

    Loaders and generators are read batch by batch; what doesn't fit into memory is kept in a temporary file.

    Raises BadInput for other objects, a loader that raises, and more than the disk holds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if hasattr(value, "column_names") and (hasattr(value, "__getitem__") or hasattr(value, "iter")):
            return _from_columns(value, name)
        if isinstance(value, Dataset):
            value = DataLoader(value, batch_size=_BATCH)
        if isinstance(value, (DataLoader, Iterator)):
            return _from_batches(value, name)
    pair = isinstance(value, (tuple, list)) and len(value) == _PAIR and _is_inputs(value[0])
    if pair or isinstance(value, (Tensor, np.ndarray, Mapping)):
        return Split(*_parts(value, name))
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


def _bytes(inputs: Inputs) -> int:
    return sum(tensor.nbytes for tensor in parts(inputs))


def _from_batches(loader: Iterable[object], name: str) -> Split:
    first: Inputs | None = None
    inputs: list[Growing] = []
    targets = Growing(f"{name}: targets")
    shape: tuple[int, ...] | None = None
    for batch in _batches(loader, name):
        x, y = _parts(batch, name)
        if first is None:
            first, inputs = x[:0], [Growing(name) for _ in parts(x)]
            if len(x):
                refuse_too_large(_count(loader, len(x)), _bytes(x) // len(x), name)
        _require_alike(first, x, "samples", name)
        for growing, part in zip(inputs, parts(x), strict=True):
            growing.add(part)
        if y is not None:
            shape = tuple(y.shape[1:]) if shape is None else shape
            if tuple(y.shape[1:]) != shape:
                raise BadInput(
                    f"{name}: targets of shape {shape} and of {tuple(y.shape[1:])}; pad or resize them to one shape"
                )
            targets.add(y)
    if first is None:
        raise BadInput(f"{name}: the loader gave no batch; give at least one sample, or leave {name} away")
    tensors = [growing.tensor() for growing in inputs]
    return Split(like(first, tensors), targets.tensor() if shape is not None else None)


def _require_alike(first: Inputs, batch: Inputs, what: str, name: str) -> None:
    if described(batch) != described(first):
        raise BadInput(
            f"{name}: {what} of shape {described(first)} and of {described(batch)}; pad or resize them to one shape"
        )


def _batches(loader: Iterable[object], name: str) -> Iterator[object]:
    count = 0
    try:
        for count, batch in enumerate(loader, 1):  # noqa: B007 - told where the next one fails
            yield batch
    except Exception as error:
        raise BadInput(
            f"{name}: reading batch {count + 1} raised {type(error).__name__}: {one_line(error)}; mend the loader"
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
    total = len(dataset) if hasattr(dataset, "__len__") else None
    if isinstance(dataset.column_names, dict):
        listed = ", ".join(map(str, dataset.column_names))
        raise BadInput(f"{name}: a dataset of {listed}; give one split of one that has an input column")
    label: str | None = None
    cells: dict[str, _Cells] = {}
    labels: list[object] = []
    for batch in _batches(_row_batches(dataset, total), name):
        rows: dict[str, list[Any]] = batch  # type: ignore[assignment] # as _row_batches yields them
        if not cells:
            label, chosen = _choose(list(rows), name)  # which a transformation may have changed
            cells = {column: _Cells(name, column, total) for column in chosen}
        for column, values in cells.items():
            values.add(rows[column])
        if label is not None:
            labels.extend(rows[label])
    if not cells:
        _choose(list(dataset.column_names or ["x"]), name)
        raise BadInput(f"{name}: the dataset has no rows; give at least one sample, or leave {name} away")
    targets = None if label is None else as_targets(labels, name)
    tensors = tuple(values.tensor() for values in cells.values())
    return Split(Bundle(tensors, tuple(cells)) if len(tensors) > 1 else tensors[0], targets)


def _choose(columns: list[str], name: str) -> tuple[str | None, list[str]]:
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    others = [column for column in columns if column not in LABEL_COLUMNS]
    if not others:
        listed = ", ".join(columns)
        raise BadInput(f"{name}: a dataset of {listed}; give one split of one that has an input column")
    return label, [column for column in MODEL_COLUMNS if column in columns] or others[:1]


def _row_batches(dataset: Any, total: int | None) -> Iterator[dict[str, list[Any]]]:  # noqa: ANN401 - duck-typed
    """Yield columns of some rows at a time; a streamed dataset gives its rows one by one."""
    if total is not None:
        for start in range(0, total, _BATCH):
            yield dataset[start : start + _BATCH]
        return
    rows = iter(dataset)
    while batch := list(islice(rows, _BATCH)):
        yield {column: [row[column] for row in batch] for column in batch[0]}


class _Cells:
    """A column's cells, all of one shape: pictures as pixels until all are there (grey or colour), else tensors."""

    def __init__(self, name: str, column: str, total: int | None) -> None:
        self.name, self.column, self.total = name, column, total
        self.pictures: list[np.ndarray[Any, Any]] = []
        self.numbers = Growing(name)
        self.first: np.ndarray[Any, Any] | None = None
        self.count = 0

    def add(self, cells: Iterable[object]) -> None:
        """Add cells. Raises BadInput for one that is no picture or numbers, or of another shape than the first."""
        values = []
        for cell in cells:
            value = _cell(cell, f"{self.name} row {self.count}", self.column)
            if self.first is None:
                self.first = value
                refuse_too_large(self.total or 1, 4 * value.size, self.name)
            if value.ndim != self.first.ndim or value.shape != self.first.shape:
                _uneven(self.first, value, self.count, self.name, self.column)
            values.append(value)
            self.count += 1
        if self.first is not None and _is_picture(self.first):
            self.pictures += values
        else:
            self.numbers.add(images.from_array(np.stack(values), self.name))

    def tensor(self) -> Tensor:
        """Return all cells as one tensor."""
        if self.pictures:
            return images.stack(self.pictures, colour=any(v.ndim == 3 for v in self.pictures))  # noqa: PLR2004 - (H, W, 3)
        return self.numbers.tensor()


def _cell(cell: object, where: str, column: str) -> np.ndarray[Any, Any]:
    if isinstance(cell, Image.Image):
        return images.decode(images.Picture(cell, where))
    if isinstance(cell, (str, dict, type(None))):
        raise BadInput(
            f"{where}: column {column} holds a {type(cell).__name__}; inputs are images, numbers or lists of numbers"
        )
    return np.asarray(cell)


def _uneven(first: np.ndarray[Any, Any], last: np.ndarray[Any, Any], row: int, name: str, column: str) -> None:
    """Raise BadInput when a value differs from the first; grey images among colour ones may."""
    if _is_picture(first) and _is_picture(last):
        images.require_same_size(first, "row 0", last, f"row {row}", name)
        return
    raise BadInput(
        f"{name} row {row}: column {column} has shape {last.shape}, row 0 {first.shape}; pad them to one shape"
    )


def _is_picture(value: np.ndarray[Any, Any]) -> bool:
    """Whether a value looks like decoded pixels: uint8, (H, W) or (H, W, 3)."""
    return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[-1] == 3))  # noqa: PLR2004
