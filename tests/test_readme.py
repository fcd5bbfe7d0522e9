"""What the README says of results and techniques is what the code and the benchmarks' results say."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from easycompress.selection import select
from easycompress.selection.explain import rules
from easycompress.techniques import TECHNIQUES

ROOT = Path(__file__).parents[1]


def table(first: str) -> list[list[str]]:
    """Return the rows of the README's table whose first column has that heading, each a list of cells."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_codes_are_those_of_the_benchmark() -> None:
    results = json.loads((ROOT / "benchmarks/results/lc.json").read_text(encoding="utf-8"))["rows"]
    expected = {
        f"`{name}`": [
            row["model"],
            str(row["epochs"]),
            f"{row['onnx_ratio']:.1f}x",
            f"{row['ecz_ratio']:.1f}x",
            f"{row['report']['drop']:.2f}",
        ]
        for name, row in results.items()
    }
    assert {name: [net.lower(), *numbers] for name, net, _codes, *numbers in table("row")} == expected


def test_every_technique_is_in_the_table_once() -> None:
    assert sorted(row[0] for row in table("kind")) == sorted(f"`{technique.name}`" for technique in TECHNIQUES)


def test_a_technique_is_chosen_by_rules_that_exist_or_by_recipe() -> None:
    planned = {f"`{t.name}`" for t in TECHNIQUES if t.settings in vars(select).values()}
    for kind, _does, chosen, _source in table("kind"):
        named = re.findall(r"\b[A-Z]\d+\b", chosen)
        assert set(named) <= set(rules()), kind
        assert bool(named) == (kind in planned), f"{kind}: what selection plans has a rule, the rest is by recipe"
        assert named or "by recipe" in chosen, kind


def test_sources_are_the_techniques_own() -> None:
    sources = {f"`{technique.name}`": technique.source for technique in TECHNIQUES}
    for kind, _does, _chosen, source in table("kind"):
        first = re.split(r"[ ;,]", source)[0]
        assert first in sources[kind], f"{kind}: the README names {first}, the technique {sources[kind]}"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_every_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")
