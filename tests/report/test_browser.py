"""The page in a browser: its script runs under its own policy, sorts by value, copies, and unfolds for paper."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.report.html import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easycompress.core.outcome import Report

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, full_report: Report, tmp_path: Path) -> Iterator[Any]:
    """The page at the width of a desk; fails on anything that the browser complains about."""
    file = tmp_path / "report.html"
    file.write_text(render(full_report), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(file.as_uri())
    yield opened
    context.close()
    assert complaints == []


def column(page: Any, section: str, place: int) -> list[str]:
    cells = page.locator(f"#{section} tbody td:nth-child({place})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def test_tables_sort_by_value_with_the_keyboard(page: Any) -> None:
    head = page.locator("#layers th", has_text="Bytes")
    assert column(page, "layers", 5) == ["560", "12\u202f900", "98\u202f300", "\u2013"]
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "layers", 5) == ["98\u202f300", "12\u202f900", "560", "\u2013"], "what is gone stays last"
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "layers", 5) == ["560", "12\u202f900", "98\u202f300", "\u2013"]
    assert page.get_by_role("status").inner_text() == "By Bytes, ascending"
    page.locator("#layers th", has_text="Layer").get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, "layers", 1) == ["conv1", "conv2", "fc1", "fc2"]


def test_code_is_copied_whole(page: Any) -> None:
    button = page.get_by_role("button", name="Copy the code: run in ONNX Runtime")
    button.click()
    page.get_by_text("Copied").first.wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#use-it code").first.text_content()
    assert copied.startswith("import numpy as np\n")


def test_the_page_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    sizes = "all => all.map(one => [one.viewBox.baseVal.width, one.getBoundingClientRect().width])"
    shown = [(drawn, width) for drawn, width in page.locator("svg.tree").evaluate_all(sizes) if width]
    assert {drawn for drawn, _ in shown} == {350}, "drawn for the phone, not scaled down"
    assert all(width == pytest.approx(360 - 2 * 18, abs=1) for _, width in shown)


def test_paper_shows_what_is_folded(page: Any) -> None:
    folded = "[...document.querySelectorAll('details:not([open])')].length"
    before = page.evaluate(folded)
    assert before >= 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == before
    page.emulate_media(media="print")
    assert page.locator("#decisions table").is_visible(), "without the script too"
    assert not page.locator(".copy").first.is_visible()


def test_without_its_script_the_page_is_whole(browser: Any, full_report: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(full_report), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert opened.locator("button").count() == 0, "no button that does nothing"
    assert opened.locator("#use-it code").first.is_visible()
    opened.locator("#decisions summary", has_text="Every answer").click()
    assert opened.locator("#decisions table").is_visible()
    context.close()
