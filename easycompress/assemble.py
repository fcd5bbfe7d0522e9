"""The model and the data that a request names become one task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from easycompress.core.errors import BadInput
from easycompress.core.goal import parse_budget, parse_search
from easycompress.core.ledger import spending
from easycompress.executor.study import check_installed
from easycompress.intake.blind import make_blind_task
from easycompress.intake.config import NAME
from easycompress.intake.data import Raw, load_data, raw_of
from easycompress.intake.handed import is_dataset, read_objects
from easycompress.intake.huggingface import processor_of
from easycompress.intake.judging import UNLABELLED
from easycompress.intake.models import Loaded, load_model
from easycompress.intake.onnx_open import face_of
from easycompress.intake.synthetic import shaped
from easycompress.intake.task import find_metric, make_task
from easycompress.metrics import METRICS
from easycompress.prepare import make_goal

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs
    from easycompress.core.request import Request
    from easycompress.core.task import Task


@spending("reading")
def make_the_task(model: nn.Module | str | Path, request: Request, base: Path, splits: tuple[object, ...]) -> Task:
    """Read model and data and check them against each other; goals that make no sense are refused first.

    `splits` are train, validation and test as handed over in Python, each None where it wasn't. Without them and
    without `request.data` the task is blind: quality isn't judged, and so no floor can be asked for.
    """
    given = {
        name: value for name, value in zip(("train", "validation", "test"), splits, strict=True) if value is not None
    }
    blind = not given and request.data is None
    if blind:
        _refuse_floor(request)
    metric = METRICS["accuracy"] if request.metric is None else find_metric(request.metric, base)
    make_goal(request, metric, blind=blind)
    _check_search(request)
    if blind:
        loaded = _loaded(model, request, base, None if request.shape is None else shaped(request.shape, 1))
        task = make_blind_task(loaded.model, request.shape, loaded.checkpoint_bytes, loaded.notes)
    else:
        loaded, raw = _both(model, request, base, given)
        notes = (*loaded.notes, *raw.notes)
        task = make_task(loaded.model, raw, request, base, loaded.checkpoint_bytes, notes)
    task.model.requires_grad_()  # what the user froze for inference must still recover; the copy is ours
    return task


def _check_search(request: Request) -> None:
    """Raise BadInput where a search is asked for that can't be: it takes training, and Optuna."""
    budget = parse_budget(request.budget)
    if request.search is None:
        return
    parse_search(request.search)
    if budget.kind == "none":
        raise BadInput(
            f"--search {request.search} with --budget {request.budget}: trials train; give a budget such as 20min, or "
            "leave --search out"
        )
    check_installed()


def _both(model: nn.Module | str | Path, request: Request, base: Path, given: dict[str, object]) -> tuple[Loaded, Raw]:
    """Return model and data. The model comes first, as its processor reads the data, but where they say its lengths."""
    face = None if isinstance(model, nn.Module) else face_of(Path(model))
    if face is None:
        loaded = _loaded(model, request, base, None)
        return loaded, read_data(request, base, given, loaded)
    raw = read_data(request, base, given, Loaded(face, None, ()))
    split = next(split for split in (raw.test, raw.validation, raw.train) if split is not None)
    return _loaded(model, request, base, split.inputs[:1]), raw


def _loaded(model: nn.Module | str | Path, request: Request, base: Path, sample: Inputs | None) -> Loaded:
    if isinstance(model, nn.Module):
        return Loaded(model, None, ())
    return load_model(Path(model), request.factory, base, trust_pickle=request.trust_pickle, sample=sample)


def _refuse_floor(request: Request) -> None:
    """Raise BadInput where something is asked for that takes data, and there is none."""
    wanted = {
        "--max-drop": request.max_drop, "--min-quality": request.min_quality, "--metric": request.metric,
        "--certify": request.certify or None,
    }  # fmt: skip
    flag = next((f"{flag} {value}" for flag, value in wanted.items() if value is not None), None)
    if flag is not None:
        raise BadInput(
            f"no data given, so {flag} can't be judged: add --data (a file, a folder, a data set's name or "
            f"file.py:function), or write it into an {NAME} beside the model; without any floor the weights alone are "
            "compressed and quality isn't judged"
        )


def read_data(request: Request, base: Path, given: dict[str, object], loaded: Loaded) -> Raw:
    """Return the data: what was handed over in Python, else what --data names."""
    labelled = request.metric is not None and request.metric not in UNLABELLED
    if given:
        processor = loaded.processor
        if processor is None and any(is_dataset(value) for value in given.values()):
            processor = processor_of(loaded.model)
        return raw_of(
            read_objects(
                given,
                mean=request.mean,
                std=request.std,
                columns=request.columns,
                model=loaded.model,
                processor=processor,
                labelled=labelled,
            )
        )
    assert request.data is not None  # noqa: S101 - without either the task is blind
    return load_data(
        request.data,
        mean=request.mean,
        std=request.std,
        base=base,
        seed=request.drawn_by,
        labelled=labelled,
        columns=request.columns,
        model=loaded.model,
        processor=loaded.processor,
    )
