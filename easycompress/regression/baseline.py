"""A finished run's report as what a later model is held to, and a finished run as what is held to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, sha256
from easycompress.core.outcome import SCHEMA, Artifact, Measurement
from easycompress.core.request import Request
from easycompress.predictions import NAME as PREDICTIONS
from easycompress.predictions import Predictions, read_predictions

REPORT, MODEL, PACKED, DATA = "report.json", "model.onnx", "model.ecz", "model.onnx.data"

POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class MetricFacts:
    """What a report says of its metric."""

    name: str
    percent: bool
    higher_is_better: bool


@dataclass(frozen=True)
class Reported:
    """A report and the folder that it stands in: what a check needs of it.

    `inputs` are the model's: name, sample shape, dtype.
    """

    path: Path
    request: Request
    final: Measurement
    metric: MetricFacts
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    artifacts: dict[str, Artifact]

    @property
    def folder(self) -> Path:
        """Return where its files are."""
        return self.path.parent

    @property
    def blind(self) -> bool:
        """Whether neither the line nor Python gave data, as far as the report knows."""
        return self.request.data is None and self.request.shape is not None

    def wrong(self, name: str) -> str | None:
        """Return what is wrong with one of its files by its bytes and SHA-256; None where nothing is."""
        said, path = self.artifacts[name], self.folder / name
        if not path.is_file():
            return f"{name} is missing"
        if is_pointer(path):
            return f"{name} is a pointer of Git LFS, not the file (git lfs pull fetches it)"
        size = path.stat().st_size
        if size != said.bytes:
            return f"{name} has {size} bytes, by the report {said.bytes}"
        return None if sha256(path) == said.sha256 else f"{name} isn't the file of the report: its SHA-256 differs"

    def trusted(self, name: str) -> Path:
        """Return the path of one of its files. Raises BadInput where it isn't as it was written."""
        if name not in self.artifacts:
            raise BadInput(f"{self.path}: lists no {name}; write the baseline anew with easycompress compress")
        wrong = self.wrong(name)
        if wrong is not None:
            raise BadInput(f"{self.path}: {wrong}; the baseline must be as it was written: copy it again")
        return self.folder / name

    def predictions(self) -> Predictions:
        """Return the answers on the report split. Raises BadInput where they aren't as they were written."""
        return read_predictions(self.trusted(PREDICTIONS))


def is_pointer(path: Path) -> bool:
    """Tell whether Git LFS left its pointer where the file should be, as a checkout without it does."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def read_report(path: Path) -> Reported:
    """Read a report.json, or the one in a folder. Raises BadInput for what is no report of this version."""
    path = path / REPORT if path.is_dir() else path
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not a report of easycompress ({SCHEMA}); give the report.json of a finished run")
    try:
        known = {key: value for key, value in data["request"].items() if key in Request.model_fields}
        found = Reported(
            path=path,
            request=Request.model_validate(known),
            final=Measurement.model_validate(data["final"]),
            metric=MetricFacts(**data["profile"]["metric"]),
            inputs=tuple(
                (str(i["name"]), tuple(map(int, i["shape"])), str(i["dtype"])) for i in data["profile"]["inputs"]
            ),
            artifacts={str(entry["path"]): Artifact.model_validate(entry) for entry in data["artifacts"]},
        )
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise BadInput(
            f"{path}: not a whole report ({_what(error)}); give the report.json of a finished run"
        ) from error
    paths = [PurePosixPath(name) for name in found.artifacts]
    foreign = [path for path in paths if path.is_absolute() or ".." in path.parts]
    if foreign:
        raise BadInput(f"{path}: lists a file outside of its folder ({foreign[0]}); give an unchanged report")
    return found


def _what(error: Any) -> str:  # noqa: ANN401 - any of the above
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return f"{type(error).__name__}: {error}"
