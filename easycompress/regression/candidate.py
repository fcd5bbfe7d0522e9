"""What is compared with the baseline: a finished result, or a model's file alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.artifact.container import read_ecz
from easycompress.artifact.write import unpacked
from easycompress.core.errors import BadInput
from easycompress.core.files import write_bytes
from easycompress.regression.baseline import DATA, MODEL, PACKED, REPORT, Reported, read_report

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

GIVE = "give the folder of a finished result, a model.onnx or a model.ecz"


@dataclass(frozen=True)
class Candidate:
    """`model` runs, `packed` is its .ecz file. `report` and `claimed`: the result's own report, and its files to hash.

    Of a file beside a report that lists it, the report's word on that file counts too.
    """

    path: Path
    model: Path
    packed: Path | None
    report: Reported | None
    claimed: tuple[str, ...]

    @property
    def saved(self) -> bool:
        """Whether a whole result was given, with its stored answers."""
        return self.path.is_dir()


def find_candidate(path: Path, scratch: Path) -> Candidate:
    """Return what a path names; a packed file is unpacked into `scratch`. Raises BadInput for anything else."""
    if path.is_dir():
        if not (path / REPORT).is_file():
            raise BadInput(f"{path}: holds no {REPORT}, so no run finished there; {GIVE}")
        report = read_report(path)
        packed = path / PACKED if PACKED in report.artifacts else None
        return Candidate(path, path / MODEL, packed, report, tuple(report.artifacts))
    if not path.is_file():
        raise BadInput(f"{path}: doesn't exist; {GIVE}")
    if path.suffix not in (".onnx", ".ecz"):
        raise BadInput(f"{path}: neither .onnx nor .ecz; {GIVE}")
    beside, claimed = _beside(path)
    if path.suffix == ".onnx":
        return Candidate(path, path, None, beside, claimed)
    model = scratch / MODEL
    if beside is None or beside.wrong(path.name) is None:
        proto: onnx.ModelProto = unpacked(*read_ecz(path))
        write_bytes(model, proto.SerializeToString(deterministic=True))
    return Candidate(path, model, path, beside, claimed)


def _beside(path: Path) -> tuple[Reported | None, tuple[str, ...]]:
    """Return the report in a file's folder that lists it, and which of its files are this one."""
    if not (path.parent / REPORT).is_file():
        return None, ()
    report = read_report(path.parent)
    names = {MODEL: (MODEL, DATA), PACKED: (PACKED,)}.get(path.name, ())
    claimed = tuple(name for name in names if name in report.artifacts)
    return (report if claimed else None), claimed
