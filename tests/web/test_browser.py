"""The page in headless Chromium: the whole path with a real net, and what happens when things go otherwise."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from tiny import tiny

from easycompress.web.server import bind, make_server
from easycompress.web.settings import Settings
from easycompress.web.store import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = os.environ.get("EASYCOMPRESS_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; EASYCOMPRESS_CHROMIUM may name one")

SLOW = 300_000
"""Milliseconds that a real job may take on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must not meet an error of its own, or ask anybody else for anything."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, accept_downloads=True, reduced_motion="reduce"
    )
    made = context.new_page()
    made.set_default_timeout(60_000)
    errors: list[str] = []
    foreign: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    made.on(
        "request",
        lambda asked: (
            foreign.append(asked.url) if not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", asked.url) else None
        ),
    )
    yield made
    context.close()
    assert errors == []
    assert foreign == []


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve in a thread of this process; yields the address."""
    with contextlib.closing(bind(Settings(**{**vars(settings), "port": 0}))) as listening:
        port = listening.getsockname()[1]
        server = make_server(Settings(**{**vars(settings), "port": port}))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def pretending(settings: Settings, pretend: None) -> Iterator[str]:  # noqa: ARG001 - before the queue starts
    """The address of a server whose jobs only pretend."""
    with serving(settings) as address:
        yield address


def started(work: Path, port: int) -> subprocess.Popen[bytes]:
    """Start `easycompress serve` as a user does, and wait until it answers."""
    command = [sys.executable, "-m", "easycompress", "serve", "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert server.stdout is not None
    assert f"easycompress is at http://127.0.0.1:{port}/" in server.stdout.readline().decode()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return server
        time.sleep(0.05)
    raise AssertionError("the server doesn't answer")


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def fill_model(page: Any, model: str, data: str = "data.npz", factory: str = "") -> None:
    page.get_by_label("Path of the model").fill(model)
    page.get_by_label("Path or name of the data").fill(data)
    page.get_by_label("Factory").fill(factory)
    page.get_by_role("button", name="Look at the model").click()


def plan(page: Any, budget: str = "none", target: str = "10x") -> None:
    page.get_by_label("Target").fill(target)
    page.get_by_label("Budget").fill(budget)
    page.get_by_role("button", name=re.compile("Make the plan|Plan again")).click()
    page.get_by_role("button", name="Run it").wait_for()


def run_of(page: Any) -> str:
    return str(page.url).rpartition("/")[2]


def test_the_whole_path_over_a_reload_and_a_kill_of_the_server(page: Any, tmp_path: Path) -> None:
    """A real net: looked at, planned, the plan changed, run, reloaded, killed in mid-run, resumed, downloaded, run."""
    work = tmp_path / "user"
    tiny().write(work)
    page.set_default_timeout(SLOW)
    port = free_port()
    server = started(work, port)
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("main").get_by_role("link", name="New run").click()
        page.get_by_label("Upload a file").first.check()
        page.get_by_label("File of the model").set_input_files(work / "net.safetensors")
        page.get_by_role("main").get_by_text("net.safetensors is on the server.").wait_for()
        page.get_by_label("Path or name of the data").fill("data.npz")
        page.get_by_label("Factory").fill("net.py:make")
        page.get_by_role("button", name="Look at the model").click()
        page.get_by_role("cell", name="BatchNorm2d").first.wait_for()
        page.get_by_label("Largest drop").fill("5%")
        plan(page, budget="200ep", target="6x")
        _insist(page)
        page.get_by_role("button", name="Run it").click()
        page.get_by_text("in progress").wait_for()
        page.get_by_role("img", name=re.compile(r"Loss over \d+ epochs")).wait_for()
        page.reload()
        page.get_by_text("in progress").wait_for()
        page.get_by_role("img", name=re.compile(r"Loss over \d+ epochs")).wait_for()
        store = Store(work / "easycompress-runs" / "runs")
        number = run_of(page)
        server.kill()
        server.wait()
        os.killpg(int((store.place(number) / "job.lock").read_text()), signal.SIGKILL)
        server = started(work, port)
        page.get_by_text("the server was restarted").wait_for()  # the open page finds the new server by itself
        page.get_by_role("link", name="Open the report").wait_for()
        assert "Met" in page.get_by_role("main").inner_text()
        with page.expect_download() as download:
            page.get_by_role("link", name="model.onnx", exact=True).click()
        download.value.save_as(tmp_path / "model.onnx")
        page.goto(f"http://127.0.0.1:{port}/api/runs/{number}/report")
        assert "Goal" in page.inner_text("body")
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    inputs, targets = tiny().splits["test"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    answers = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    assert np.mean(np.argmax(answers, 1) == targets.numpy()) > 0.8
    assert (tmp_path / "model.onnx").stat().st_size * 5.5 < (work / "net.safetensors").stat().st_size


def _insist(page: Any) -> None:
    """Change the plan: distillation trains to the end of its 100 epochs, so that there is time to look at it."""
    steps = page.locator("ol.steps > li")
    last = steps.filter(has_text="Distillation")
    last.get_by_text("Settings", exact=True).click()
    last.get_by_label("Mode").select_option("budget")
    last.get_by_label("Epochs").fill("100")
    page.get_by_text("Changed: the plan is carried out as it stands here.").wait_for()


def test_a_cancelled_run_goes_on(page: Any, pretending: str) -> None:
    page.goto(f"{pretending}#/new")
    fill_model(page, "net.onnx")
    plan(page, budget="1h")
    page.get_by_role("button", name="Run it").click()
    page.get_by_role("img", name=re.compile(r"Loss over \d+ epochs")).wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go on from where it stopped").wait_for()
    assert "Cancelled" in page.title()
    page.get_by_role("button", name="Go on from where it stopped").click()
    page.get_by_text("resumed after epoch").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Remove this run").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove this run").click()
    page.get_by_text("Nothing here yet").wait_for()


def test_errors_stand_at_their_fields(page: Any, pretending: str) -> None:
    page.goto(f"{pretending}#/new")
    page.get_by_label("Upload a file").first.check()
    page.get_by_role("button", name="Look at the model").click()
    page.get_by_text("Name a model on the server, or choose a file.").wait_for()
    page.get_by_label("On this server").first.check()
    fill_model(page, "none.onnx")
    field = page.get_by_label("Path of the model")
    page.get_by_text("none.onnx: no such file or folder").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    assert "no such file" in _described(page, field)
    assert page.evaluate("document.activeElement.name") == "model"
    fill_model(page, "bad.onnx")  # the job refuses it
    page.get_by_text("the images have 3 channels").first.wait_for()
    mean = page.get_by_label("Mean")
    assert mean.is_visible()
    assert "3 channels" in _described(page, mean)
    fill_model(page, "net.onnx")
    page.get_by_label("Target").fill("10y")
    page.get_by_role("button", name="Make the plan").click()
    page.get_by_text("unknown unit").wait_for()
    assert "unknown unit" in _described(page, page.get_by_label("Target"))
    plan(page, target="7x")
    page.locator("ol.steps > li").first.get_by_text("Settings", exact=True).click()
    page.get_by_label("Temperature").first.fill("0")
    page.get_by_role("button", name="Run it").click()
    page.get_by_text("must be more than 0").wait_for()
    page.get_by_role("button", name="Undo my changes").click()
    page.get_by_role("button", name="Run it").click()
    page.get_by_role("alert").get_by_text("Out of everything; free something").wait_for()


def _described(page: Any, field: Any) -> str:
    """Return what a screen reader says after a field's name."""
    ids = field.get_attribute("aria-describedby").split()
    return " ".join(page.locator(f"#{each}").inner_text() for each in ids)


def test_runs_are_compared(page: Any, pretending: str) -> None:
    page.goto(f"{pretending}#/new")
    fill_model(page, "net.onnx")
    plan(page)
    page.get_by_role("button", name="Run it").click()
    page.get_by_role("button", name="Another goal for this model").click()
    page.get_by_role("button", name="Make the plan").wait_for()
    plan(page)
    page.locator("ol.steps > li").last.get_by_role("checkbox").uncheck()
    page.get_by_role("button", name="Run it").click()
    page.get_by_role("link", name="Open the report").wait_for()
    page.get_by_role("link", name="Runs").click()
    chart = page.get_by_role("img", name=re.compile("^Ratio against drop: 1. net.onnx, 10.0., drop 0.50; 2. net.onnx"))
    chart.wait_for()
    assert "plan changed by hand" in page.get_by_role("region", name="Comparison").inner_text()
    page.get_by_role("checkbox").first.uncheck()
    assert chart.count() == 0


AUDIT = (Path(__file__).parent / "audit.js").read_text()


def test_the_page_is_for_everybody(page: Any, pretending: str) -> None:
    """Contrast, names, widths: light and dark, on a phone, at 200 % zoom; and the whole form by keyboard alone."""
    page.goto(f"{pretending}#/new")
    page.get_by_label("Path of the model").focus()
    page.keyboard.type("net.onnx")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.type("data.npz")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Make the plan").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Goal"  # the focus goes where one goes on
    plan(page)
    for summary in page.locator("summary").all():
        summary.click()
    _audit(page)
    page.get_by_role("button", name="Run it").click()
    page.get_by_role("link", name="Open the report").wait_for()
    assert "done" in page.get_by_role("status").inner_text()
    _audit(page)
    page.get_by_role("link", name="Runs").click()
    page.get_by_role("heading", name="Runs").wait_for()
    page.get_by_role("img").wait_for()
    _audit(page)
    page.get_by_role("link", name="New run").click()
    page.get_by_role("heading", name="New run").wait_for()
    _audit(page)


def _audit(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 640, 390, 320):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(AUDIT) == [], (scheme, width)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_page_with_a_token_keeps_it_out_of_its_address(page: Any, work: Path) -> None:
    token = "0123456789abcdef"  # noqa: S105 - of this test
    with serving(Settings(folder=work / "runs", work=work, root=work, token=token)) as address:
        page.goto(address)
        assert "its token lets you in" in page.inner_text("body")
        page.goto(f"{address}?token={token}")
        page.get_by_role("heading", name="Runs").wait_for()
        assert page.url == address
        page.reload()
        page.get_by_role("heading", name="Runs").wait_for()
