"""The picture of a report that the README shows: the demo's, run anew, its page as Chromium draws it.

    python -m benchmarks.pictures [--report REPORT.HTML] [--browser CHROMIUM]

Writes docs/images/report.png. Needs playwright and a Chromium; the one on the path is taken unless another is named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from easycompress import compress
from easycompress.core.progress import Silent
from easycompress.demo import make_demo

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "report.png"

WIDTH, HEIGHT, SCALE = 1000, 1180, 1.5
"""Of the page in px, from its top, and pixels of the picture for each."""


def main() -> None:
    """Draw the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="a report.html instead of the demo's")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = options.report or demo_report(Path(folder))
        draw(report.resolve(), options.browser)
    print(f"{IMAGE}: {IMAGE.stat().st_size} bytes")


def demo_report(folder: Path) -> Path:
    """Run the demo's command in `folder` and return its page."""
    make_demo(folder, Silent())
    goal = {"objective": "size", "target": "10x", "max_drop": "1%"}
    os.chdir(folder)  # so that the page names the model as a user would
    return (compress("model.pt", **goal).out / "report.html").resolve()


def draw(page: Path, browser: str | None) -> None:
    """Write the top of a page as a picture."""
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
        tab.goto(page.as_uri())
        tab.screenshot(path=str(IMAGE))
        chromium.close()


if __name__ == "__main__":
    main()
