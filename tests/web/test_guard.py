from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from easycompress.core.errors import BadInput
from easycompress.web.app import make_app
from easycompress.web.guard import MOST_JSON
from easycompress.web.server import bind, held, make_server, make_settings, url
from easycompress.web.settings import Settings, parse_bytes

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef0123"  # noqa: S105 - of this test

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens in these tests


def asking(settings: Settings, base: str) -> TestClient:
    """Return a client of a server whose queue isn't started."""
    return TestClient(make_app(settings), base_url=base, follow_redirects=False)


@pytest.fixture
def local(settings: Settings) -> TestClient:
    return asking(settings, "http://127.0.0.1:8000")


@pytest.fixture
def remote(settings: Settings) -> TestClient:
    return asking(
        Settings(folder=settings.folder, work=settings.work, host=EVERYWHERE, root=settings.work, token=TOKEN),
        "http://192.0.2.7:8000",
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "[::1]:8000", "LOCALHOST"])
def test_the_server_s_own_names_are_answered(local: TestClient, host: str) -> None:
    assert local.get("/api/server", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.7:8000", "", "localhost.evil"])
def test_a_page_that_rebound_its_name_is_refused(local: TestClient, host: str) -> None:
    answer = local.get("/api/server", headers={"host": host})
    assert answer.status_code == 421
    assert "is not called" in answer.json()["error"]


def test_a_name_given_by_the_operator_is_answered(settings: Settings) -> None:
    named = Settings(folder=settings.folder, work=settings.work, host=EVERYWHERE, token=TOKEN, names=("box.example",))
    sent = {"host": "box.example:8000", "authorization": f"Bearer {TOKEN}"}
    assert asking(named, "http://box.example:8000").get("/api/server", headers=sent).status_code == 200
    sent["host"] = "evil.example:8000"
    assert asking(named, "http://evil.example:8000").get("/api/server", headers=sent).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_page_s_request_is_refused(local: TestClient, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/runs"),
        ("DELETE", "/api/runs/x"),
        ("GET", "/api/runs"),
        ("POST", "/api/uploads?name=a.npz"),
    ):
        answer = local.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 403, (method, path)


@pytest.mark.usefixtures("work")
def test_the_page_s_own_request_gets_through(local: TestClient) -> None:
    headers = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert local.post("/api/runs", json={"model": "none.onnx"}, headers=headers).status_code == 422


def test_a_form_of_another_page_could_not_send_json(local: TestClient) -> None:
    answer = local.post("/api/runs", content=b'{"model": "net.onnx"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_a_request_is_of_moderate_length(local: TestClient) -> None:
    assert local.post("/api/runs", json={"model": "x" * MOST_JSON}).status_code == 413
    pieces = local.post("/api/runs", content=iter([b"{}"]), headers={"content-type": "application/json"})
    assert pieces.status_code == 411


@pytest.mark.parametrize("path", ["/", "/api/server", "/api/runs", "/static/app.js", "/api/places"])
def test_without_the_token_nothing_is_shown(remote: TestClient, path: str) -> None:
    answer = remote.get(path)
    assert answer.status_code == 401
    assert TOKEN not in answer.text


@pytest.mark.parametrize("given", ["", "0123456789abcdef012", TOKEN + "0", "é", TOKEN.upper()])
def test_another_token_is_refused(remote: TestClient, given: str) -> None:
    assert remote.get("/api/server", headers={"authorization": f"Bearer {given}".encode()}).status_code == 401
    assert remote.get("/", params={"token": given}).status_code == 401


def test_the_address_with_the_token_sets_a_cookie_and_forgets_it(remote: TestClient) -> None:
    answer = remote.get(f"/?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert remote.get("/").status_code == 200
    assert remote.get("/api/server").status_code == 200


def test_a_program_sends_the_token_as_a_header(remote: TestClient) -> None:
    assert remote.get("/api/server", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_answers_forbid_foreign_and_inline_scripts(local: TestClient) -> None:
    for path in ("/", "/api/server", "/nothing", "/static/app.css"):
        headers = local.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_itself_needs_nothing_from_elsewhere(local: TestClient) -> None:
    text = local.get("/").text
    assert "<script>" not in text
    assert "style=" not in text
    assert "//" not in text.replace("<!doctype", "")


def test_there_is_no_description_that_loads_scripts_from_elsewhere(local: TestClient) -> None:
    assert {local.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {404}


def flags(**changed: object) -> Settings:
    usual = {"host": "127.0.0.1", "port": 8000, "folder": None, "root": None, "token": None, "max_upload": "2GB",
             "names": ()}  # fmt: skip
    return make_settings(**{**usual, **changed})  # type: ignore[arg-type]


def test_on_loopback_nobody_is_asked_for_a_token() -> None:
    made = flags()
    assert (made.token, made.root, made.max_upload) == (None, None, 2 * 10**9)
    assert url(made, 8000) == "http://127.0.0.1:8000/"


def test_elsewhere_a_token_is_made_and_paths_stay_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = flags(host=EVERYWHERE)
    assert made.token is not None
    assert len(made.token) == 32
    assert made.root == tmp_path
    assert made.token != flags(host=EVERYWHERE).token
    assert url(made, 8000).endswith(f":8000/?token={made.token}")
    assert flags(token=TOKEN).root == tmp_path


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"token": "short"}, "--token: write at least 16"),
        ({"max_upload": "2 apples"}, "--max-upload 2 apples: not a size; write 500MB or 2GB"),
        ({"port": 70000}, "--port 70000: not a port"),
        ({"root": "nowhere"}, "--root nowhere: no such folder"),
    ],
)
def test_senseless_flags_are_one_line(wrong: dict[str, object], line: str) -> None:
    with pytest.raises(BadInput) as refusal:
        flags(**wrong)
    assert str(refusal.value).startswith(line)


def test_sizes() -> None:
    assert [parse_bytes(text, "--x") for text in ("1KB", "1.5 MB", "2gb")] == [1000, 1_500_000, 2 * 10**9]


def test_a_missing_extra_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(BadInput, match=r'pip install "easycompress\[web\]"'):
        make_server(settings)


def test_a_taken_port_is_one_line(settings: Settings) -> None:
    with contextlib.closing(bind(dataclasses.replace(settings, port=0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"--port {port}: can't listen there .*choose another --port"):
            bind(dataclasses.replace(settings, port=port))


def test_one_server_has_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "runs"), pytest.raises(BadInput, match="another server has it"), held(tmp_path / "runs"):
        pass
    with held(tmp_path / "runs"):
        pass
