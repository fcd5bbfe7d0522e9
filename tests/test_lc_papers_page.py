"""The LC papers' tables: ours beside theirs, formulas as section IV-A has them, and what wasn't run is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.lc_papers_page import cells, distance, lines, logistic
from benchmarks.lc_papers_reasons import REASONS
from benchmarks.lc_papers_rows import ROWS, TABLES, PaperRow, added
from benchmarks.lc_papers_work import bits_000, ranks, ratio
from benchmarks.markdown import NOT_RUN
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse


def known(name: str) -> PaperRow:
    return next(row for row in ROWS if row.name == name)


def found(drop: float, **changes: Any) -> dict[str, Any]:
    return {
        "report": {"before": 98.0, "drop": drop, "upper_95": drop + 0.2}, "formula_ratio": 13.5, "onnx_bytes": 100_000,
        "onnx_ratio": 11.0, "ecz_bytes": 80_000, "ecz_ratio": 13.0, "epochs": 10.0, **changes,
    }  # fmt: skip


def test_what_was_not_run_is_said_with_the_papers_numbers() -> None:
    text = "\n".join(lines({}))
    assert text.count(NOT_RUN) == len(ROWS) + 3  # table 2 has a reference and two rows
    assert "13.34" not in text  # nothing to hold it against


def test_the_distance_is_the_excess_over_the_papers_excess() -> None:
    row = known("resnet20 L+P rank 3 + 5 %")  # 8.35 -> 11.44
    assert distance(row, found(3.5)) == pytest.approx(3.5 - 3.09)
    assert cells(row, found(3.0))[-1] == "reached"


def test_where_the_paper_draws_a_figure_its_reference_stands_for_it() -> None:
    row = known("lenet300 quantization k=2")
    assert distance(row, found(0.4)) == pytest.approx(0.4)


def test_nested_rows_are_held_against_the_net_they_are_nested_into() -> None:
    row = known("lenet300 L then Q+P 1 %")  # 41.02 -> 41.27
    nested = found(0.9, first={"report": {"drop": 0.4}})
    assert distance(row, nested) == pytest.approx(0.5 - 0.25)
    assert any("+0.50 over the low-rank net's, +0.90" in cell for cell in cells(row, nested))


def test_a_miss_without_a_reason_is_not_explained() -> None:
    row = known("resnet20 Q+P 5 %")
    expected = REASONS.get(row.name, "not looked into")
    assert cells(row, found(9.0))[-1] == expected
    assert "reached" not in expected


def test_reasons_and_tables_are_of_rows_that_exist() -> None:
    assert set(REASONS) <= {row.name for row in ROWS}
    assert {row.table for row in ROWS} == set(TABLES)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_first_papers_formula_counts_32_bits_a_value() -> None:
    assert bits_000(Codebook(torch.zeros(100, dtype=torch.uint8), torch.zeros(4))) == 4 * 32 + 100 * 2
    positions = torch.arange(0, 40, 4)  # ten values, gaps of 3 in two bits; the first is 0
    assert bits_000(Sparse(positions, torch.ones(10), (40,))) == 10 * (32 + 2)
    thin = LowRank(torch.ones(20, 2), torch.ones(2, 30), (20, 30))
    full = LowRank(torch.ones(20, 20), torch.ones(20, 30), (20, 30))
    assert bits_000(thin) == 32 * 2 * 50
    assert bits_000(full) == 32 * 600  # no rank that saves nothing is stored as factors


def test_the_ratio_counts_what_has_no_code_in_floats() -> None:
    net = nn.Linear(30, 20)
    code = LowRank(torch.ones(20, 2), torch.ones(2, 30), (20, 30))
    assert ratio(net, net, {"weight": code}, "000") == pytest.approx(620 / (100 + 20))
    assert ratio(net, net, {"weight": code}, "002") == pytest.approx(620 / (50 + 20))
    assert ranks({"weight": Additive((code, code)), "bias": code}) == {"weight": 2, "bias": 2}


def test_sums_hold_the_parts_that_they_name() -> None:
    tasks = added(one_bit=True, rank=2, share=0.01)(("a", "b"))
    assert [type(part).__name__ for part in tasks["a",]] == ["AdaptiveQuantization", "LowRankAt"]
    assert tasks["a", "b"].share == 0.01


@pytest.mark.parametrize(
    ("loss", "end"), [(1.90, "+0.0423 | 50 epochs of 1000; no more were tried |"), (1.70, "-0.1577 | reached |")]
)
def test_the_logistic_regressions_excess_is_held_against_the_papers(loss: float, end: str) -> None:
    """The paper's losses are 1.5253 before and 1.6830 with 100 corrections."""
    row = {
        "reference": {"loss": 1.70, "accuracy": 38.0}, "reference_epochs": 30, "loss": loss, "accuracy": 35.0,
        "corrected": {"linear.bias": 9}, "onnx_bytes": 5000, "ecz_bytes": 4000, "epochs": 50,
    }  # fmt: skip
    (line,) = [line for line in logistic({"logistic 100 corrections": row}).splitlines() if "100 corr" in line]
    assert line.endswith(end)
