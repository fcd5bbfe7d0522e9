"""The checks as a JUnit file, which every CI system shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from easycompress.core.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.regression.outcome import Outcome

SUITE = "easycompress check"

_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, escaped or not."""


def write_junit(path: Path, outcome: Outcome) -> None:
    """Write one test case a check: failed, skipped where it wasn't judged, passed with what was measured."""
    skipped = sum(check.passed is None for check in outcome.checks)
    suite = _suite(len(outcome.checks), failures=len(outcome.failures), errors=0, skipped=skipped)
    for check in outcome.checks:
        case = ET.SubElement(suite, "testcase", name=check.name, classname=_clean(outcome.candidate))
        if check.passed is None:
            ET.SubElement(case, "skipped", message=_clean(check.reason))
        elif check.passed:
            ET.SubElement(case, "system-out").text = _clean(check.reason)
        else:
            ET.SubElement(case, "failure", message=_clean(check.reason), type="regression")
    _write(path, suite)


def write_junit_error(path: Path, text: str) -> None:
    """Write that nothing could be compared, as one test case with an error."""
    suite = _suite(1, failures=0, errors=1, skipped=0)
    case = ET.SubElement(suite, "testcase", name="check", classname=SUITE)
    ET.SubElement(case, "error", message=_clean(text), type="bad input")
    _write(path, suite)


def _suite(tests: int, *, failures: int, errors: int, skipped: int) -> ET.Element:
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": skipped}
    return ET.Element("testsuite", {"name": SUITE} | {name: str(count) for name, count in counts.items()})


def _write(path: Path, suite: ET.Element) -> None:
    root = ET.Element("testsuites", {k: v for k, v in suite.attrib.items() if k != "name"})
    root.append(suite)
    ET.indent(root)
    write_bytes(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)
