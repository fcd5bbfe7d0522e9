"""The command, the JUnit file, GitHub's annotations, the fixture, and the page about them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from benchmarks.regression import RESULTS, renamed
from benchmarks.regression_page import inserted, table
from easycompress import pytest_plugin
from easycompress.cli import _run
from easycompress.pytest_plugin import easycompress_check  # noqa: F401 - the fixture under test
from easycompress.regression.annotations import error_line
from easycompress.regression.junit import write_junit, write_junit_error
from easycompress.regression.outcome import Outcome, fine, unjudged, worse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ci.md"

MADE = Outcome(
    "out",
    "base",
    (
        fine("size", "9 bytes", "1.02x", "9 bytes, <1.02x"),
        worse("quality", "1 %", "0.50", 'drop "1" & more'),
        unjudged("latency", "n"),
    ),
)


def test_the_command_tells_and_ends_by_the_verdict(
    base: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert _run(["check", str(base), "--baseline", str(base / "report.json")]) == 0
    told = capsys.readouterr().out
    assert re.search(r"quality +\d+\.\d\d %, drop 0\.00 points +drop 0\.50 points +ok", told)
    assert f"FINE: {base} is within the limits" in told
    assert "::error" not in told
    renamed(copy / "model.onnx", copy / "model.onnx")
    junit = tmp_path / "check.xml"
    flags = ["check", str(copy), "--baseline", str(base), "--max-latency-ratio", "none", "--junit", str(junit)]
    assert _run([*flags, "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["REGRESSION", ""]
    assert lines[1].startswith("::error title=easycompress check%3A files::model.onnx has ")
    assert ET.parse(junit).getroot().attrib["failures"] == "1"  # noqa: S314 - our own file
    assert _run([*flags, "--json"]) == 1
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert (content["schema"], content["verdict"]) == ("easycompress-check/1", "regression")
    assert content["checks"][0].keys() == {"name", "passed", "measured", "allowed", "reason"}
    assert "::error" in captured.err


def test_a_refusal_is_one_line_an_error_in_the_junit_file_and_an_annotation(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    junit = tmp_path / "check.xml"
    assert _run(["check", "nothing.onnx", "--baseline", str(base), "--junit", str(junit)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("easycompress: nothing.onnx: doesn't exist; give")
    assert len(captured.err.splitlines()) == 1
    assert captured.out.startswith("::error title=easycompress check%3A bad input::nothing.onnx: doesn't exist")
    case = ET.parse(junit).getroot()[0][0]  # noqa: S314 - our own file
    assert case[0].tag == "error"
    assert "nothing.onnx: doesn't exist" in case[0].attrib["message"]


def test_a_junit_file_has_a_case_for_each_check(tmp_path: Path) -> None:
    write_junit(tmp_path / "j.xml", MADE)
    root = ET.parse(tmp_path / "j.xml").getroot()  # noqa: S314 - our own file
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    cases = {case.attrib["name"]: case[0] for case in root[0]}
    assert {name: case.tag for name, case in cases.items()} == {
        "size": "system-out", "quality": "failure", "latency": "skipped",
    }  # fmt: skip
    assert cases["quality"].attrib["message"] == 'drop "1" & more'


def test_what_xml_cannot_hold_is_replaced(tmp_path: Path) -> None:
    write_junit_error(tmp_path / "j.xml", "a\x00b\x1b\ud800")
    case = ET.parse(tmp_path / "j.xml").getroot()[0][0]  # noqa: S314 - our own file
    assert case[0].attrib["message"] == "a?b??"


def test_annotations_are_escaped() -> None:
    line = error_line("a:b,c", "5 % more\r\nthan::before, x")
    assert line == "::error title=easycompress check%3A a%3Ab%2Cc::5 %25 more%0D%0Athan::before, x"


def test_the_fixture_passes_or_fails_with_the_reasons(
    easycompress_check: Callable[..., Outcome],  # noqa: F811 - the fixture
    base: Path,
    copy: Path,
) -> None:
    assert easycompress_check(base, baseline=base).passed
    renamed(copy / "model.onnx", copy / "model.onnx")
    with pytest.raises(pytest.fail.Exception, match=r"^files: model\.onnx has \d+ bytes, by the report \d+$"):
        easycompress_check(copy, baseline=base, max_latency_ratio="none")


def test_pytest_finds_the_fixture_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"easycompress": pytest_plugin.__name__}


def blocks(kind: str) -> list[Any]:
    return [yaml.safe_load(text) for text in re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)]


def test_the_ready_files_call_the_command_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    workflow, hooks = blocks("yaml")
    commands = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    commands += [hook["entry"] for hook in hooks["repos"][0]["hooks"]]
    checks = [command for command in commands if command.startswith("easycompress check ")]
    assert len(checks) == 2
    for command in checks:  # every flag is known: what is refused is the folder
        assert _run(command.split()[1:]) == 2
        assert "models/baseline/report.json: can't be read" in capsys.readouterr().err
    hook = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]
    assert hook["id"] == hooks["repos"][0]["hooks"][0]["id"]
    assert hook["entry"] == "easycompress check"


def test_the_page_s_numbers_are_those_of_the_benchmark() -> None:
    results = json.loads(RESULTS.read_text())
    page = PAGE.read_text()
    assert page == inserted(page, table(results))
    rows = results["rows"]
    assert len(rows["unchanged"]) == 50
    assert not any(row["failed"] for row in rows["unchanged"])
    caught = {name: all(row["failed"] for row in kept) for name, kept in rows.items() if name != "unchanged"}
    assert len(caught) == 6
    assert all(caught.values())
