"""Some hundred damaged files, the page of the many, and that the fuzzer would see a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import fuzz_reading
from benchmarks.fuzz import RESULTS, main
from benchmarks.fuzz_page import WORDS, with_numbers
from benchmarks.fuzz_reading import FAILURES, WEIGHTED, Corpus, Outcome, Reading
from benchmarks.fuzz_seeds import EXAMPLE, net, write_coded
from easycompress.artifact.inspection import inspect_onnx
from easycompress.artifact.write import write_model
from easycompress.core.errors import EasyCompressError

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PACKED, GRAPHS = 350, 150


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("whole")
    write_coded(folder, ("planes", "additive"), (False,))
    write_coded(folder, ("sparse",), (True,))
    write_model(net(), EXAMPLE, folder / "float.onnx", packed=True)
    return Corpus(sorted(folder.glob("*.ecz")) + sorted(folder.glob("*.onnx")), 0)


def numbers(corpus: Corpus, suffix: str, count: int) -> list[int]:
    return [number for number in range(10_000) if corpus.named(number)[0].suffix == suffix][:count]


def test_damaged_packed_files_are_refused_or_the_same(corpus: Corpus, tmp_path: Path) -> None:
    reading = Reading(corpus, tmp_path, lambda _: None)
    outcomes = {number: reading.read(number) for number in numbers(corpus, ".ecz", PACKED)}
    assert {n: outcome.name for n, outcome in outcomes.items() if outcome in FAILURES} == {}
    assert {corpus.named(number)[1] for number in outcomes} == set(WEIGHTED[".ecz"])
    assert {Outcome.REFUSED, Outcome.ANOTHER} <= set(outcomes.values())


def test_damaged_graphs_are_looked_at_without_a_crash(corpus: Corpus, tmp_path: Path) -> None:
    def never(*_: object) -> NoReturn:
        raise RuntimeError("what runs, runs in a child")

    said = []
    for number in numbers(corpus, ".onnx", GRAPHS):
        (tmp_path / "m.onnx").write_bytes(corpus.case(number).data)
        try:
            inspect_onnx(tmp_path / "m.onnx", never)
        except EasyCompressError as error:
            said.append(str(error))
    assert said
    assert not [text for text in said if "\n" in text]


def test_a_reader_that_believed_would_be_found(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(corpus, tmp_path, lambda _: None)
    tried = [n for n in numbers(corpus, ".ecz", PACKED) if corpus.named(n)[1] == "sealed payload"]
    other = next(number for number in tried if reading.read(number) == Outcome.ANOTHER)
    monkeypatch.setattr(fuzz_reading, "SEALED", {})  # as if the checksum were an old one
    assert reading.read(other) == Outcome.WRONG

    def raises(_: Path) -> NoReturn:
        raise KeyError("w")

    monkeypatch.setattr(fuzz_reading, "read_ecz", raises)
    assert reading.read(other) == Outcome.UNCLEAN
    assert reading.said.endswith("KeyError: 'w'\n")
    monkeypatch.setattr(fuzz_reading, "read_ecz", lambda _: bytes(fuzz_reading.SLACK + 10**9))
    assert reading.read(other) == Outcome.OVER_MEMORY


def test_the_committed_numbers_are_whole_and_the_page_is_made_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = json.loads(RESULTS.read_text())
    assert facts["files"] >= 200_000
    assert facts["failures"] == []
    counted = [count for kinds in facts["outcomes"].values() for of in kinds.values() for count in of.values()]
    assert sum(counted) == facts["files"]
    assert {name for kinds in facts["outcomes"].values() for of in kinds.values() for name in of} <= WORDS.keys()
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_numbers(text, facts)
    (tmp_path / "page.md").write_text(with_numbers(text, facts | {"files_a_second": -1}))
    monkeypatch.setattr("sys.argv", ["fuzz", "--page", str(tmp_path / "page.md")])
    assert main() == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text


def test_every_outcome_has_words() -> None:
    assert {outcome.name.lower() for outcome in Outcome} - {"unknown"} == set(WORDS)
