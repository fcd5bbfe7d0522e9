"""One finished result of the tiny net, packed, and ways to change copies of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny import tiny

from easycompress import compress
from easycompress.measure import latency
from easycompress.regression import latency as ratios

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package", autouse=True)
def _short_measurements() -> Iterator[None]:
    """Time briefly: no test here looks at how exact it gets, and limits are far from what is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        patch.setattr(ratios, "ROUND_SECONDS", 0.0)
        yield


@pytest.fixture(scope="package")
def _result(tmp_path_factory: pytest.TempPathFactory, _short_measurements: None) -> Path:
    folder = tmp_path_factory.mktemp("regression")
    path = tiny().write(folder)
    (folder / "recipe.yaml").write_text("steps:\n  - kind: entropy-quantization\n    strength: 0.3\n")  # no search
    compress(
        path, factory=f"{folder}/net.py:make", data=str(folder / "data.npz"), out=folder / "out", objective="size",
        target="5x", max_drop="5%", budget="none", format="packed", threads=1,
        recipe=str(folder / "recipe.yaml"),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="package")
def base(_result: Path) -> Path:
    """The baseline's folder, which must not be changed: take `copy`."""
    return _result / "out"


@pytest.fixture(scope="package")
def data(_result: Path) -> Path:
    """The data of the baseline."""
    return _result / "data.npz"


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A copy of the result, to change."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


def rewritten(folder: Path, **changes: Any) -> None:
    """Write a report anew: its files' bytes and hashes as they are, and top-level entries merged with `changes`."""
    path = folder / "report.json"
    report = json.loads(path.read_text())
    for key, value in changes.items():
        report[key] = report[key] | value
    for entry in report["artifacts"]:
        content = (folder / entry["path"]).read_bytes()
        entry["bytes"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(report))
