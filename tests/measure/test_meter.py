from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import pytest

from easycompress.artifact.write import write_model
from easycompress.measure import meter as place
from easycompress.measure.meter import find_meter, measure

if TYPE_CHECKING:
    from pathlib import Path


def domain(root: Path, number: int, name: str, microjoules: int, limit: int = 1_000_000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


def test_packages_are_added_up_and_other_domains_left_out(tmp_path: Path) -> None:
    first, second = domain(tmp_path, 0, "package-0", 100), domain(tmp_path, 1, "package-1", 200)
    other = domain(tmp_path, 2, "psys", 0)
    found = find_meter(tmp_path)
    assert found is not None
    assert found.joules() == 0
    (first / "energy_uj").write_text("600100")
    (second / "energy_uj").write_text("400200")
    (other / "energy_uj").write_text("900000")
    assert found.joules() == pytest.approx(1.0)


def test_a_counter_that_overflowed_goes_on(tmp_path: Path) -> None:
    package = domain(tmp_path, 0, "package-0", 900_000)
    found = find_meter(tmp_path)
    assert found is not None
    found.joules()
    (package / "energy_uj").write_text("100000")
    assert found.joules() == pytest.approx(0.2)


@pytest.mark.parametrize("text", ["", "no number"])
def test_a_machine_without_readable_counters_has_no_meter(tmp_path: Path, text: str) -> None:
    assert find_meter(tmp_path) is None
    (domain(tmp_path, 0, "package-0", 0) / "energy_uj").write_text(text)
    assert find_meter(tmp_path) is None


def test_what_costs_more_is_measured_to_cost_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter that counts a joule for each run of a small file and three for each run of a large one."""
    paths = [tmp_path / "small.onnx", tmp_path / "large.onnx"]
    for path, net in zip(paths, (nets.Mlp, nets.LeNet), strict=True):
        write_model(nets.make(net), nets.images(2), path)
    spent = 0.0

    class Counting(place.Runtime):
        def __init__(self, path: Path, threads: int) -> None:
            super().__init__(path, threads)
            self.cost = 3.0 if "large" in path.name else 1.0

        def run(self, inputs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - the base's
            nonlocal spent
            spent += self.cost
            return super().run(inputs)

    class Fake:
        def joules(self) -> float:
            return spent

    monkeypatch.setattr(place, "Runtime", Counting)
    monkeypatch.setattr(place, "BLOCK_SECONDS", 0.02)
    small, large = measure(paths, nets.images(2), 1, Fake())
    assert (small.value, large.value) == (pytest.approx(1000), pytest.approx(3000))
    assert small.source == large.source == "measured"
