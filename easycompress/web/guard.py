"""Who may ask: the token, the name of the host, and that a request comes from this page and not from another one's."""

from __future__ import annotations

import hmac
import json
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from easycompress.web.settings import Settings

    Scope = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: nothing from elsewhere, no script in its text."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
"""What every answer says, unless it says otherwise itself."""

MOST_JSON = 1 << 20
"""Bytes of a request that is no upload."""

UPLOADS = "/api/uploads"


class Refused(Exception):
    """A request that is not answered: the status and the line that says why."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


class Guard:
    """Stands in front of the application (ASGI). A request gets through, or is answered by one line."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and hand it on."""
        if scope["type"] != "http":  # the server's own start and end; there are no web sockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        sealed = _sealing(send)
        try:
            entered = self._check(scope)
        except Refused as refused:
            await _refuse(sealed, refused, words=not scope["path"].startswith("/api/"))
            return
        if entered is None:
            await self._app(scope, receive, sealed)
        else:
            await _answer(sealed, 303, b"", entered)

    def _check(self, scope: Scope) -> dict[str, str] | None:
        """Return the headers of a redirection that sets the cookie, None where a request goes on. Raises Refused."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._settings.is_called(host):
            raise Refused(
                421, f"this server is not called {host or 'that'}; use its own address, or start it with --name {host}"
            )
        writes = scope["method"] not in ("GET", "HEAD")
        if writes or scope["path"].startswith("/api/"):
            _check_source(headers, host)
        if writes:
            _check_body(headers, scope)
        return self._check_token(headers, scope)

    def _check_token(self, headers: dict[str, str], scope: Scope) -> dict[str, str] | None:
        token = self._settings.token
        if token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        shown = dict(query).get("token")
        if shown is not None and scope["method"] == "GET" and same(shown, token):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            cookie = f"{self.cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
            return {"location": "/" + (f"?{rest}" if rest else ""), "set-cookie": cookie}
        given = headers.get("authorization", "").removeprefix("Bearer ").strip() or _cookie(headers, self.cookie)
        if not same(given, token):
            raise Refused(401, "open the address that easycompress serve printed: its token lets you in")
        return None

    @property
    def cookie(self) -> str:
        """Return the cookie's name: cookies don't tell the ports of a host apart."""
        return f"easycompress-{self._settings.port}"


def same(given: str, token: str) -> bool:
    """Compare in a time that says nothing of where two texts differ."""
    return hmac.compare_digest(given.encode(), token.encode())


def _check_source(headers: dict[str, str], host: str) -> None:
    """Refuse what another page's script or form sends. Programs that are no browser send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Refused(403, "asked for by another page; open this server's own page")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(403, "asked for by another page; open this server's own page")


def _check_body(headers: dict[str, str], scope: Scope) -> None:
    """Refuse a body that is no JSON of moderate length; an upload counts its bytes itself."""
    if scope["path"] == UPLOADS:
        return
    length = headers.get("content-length", "")
    if not length.isdigit():
        if "transfer-encoding" in headers:
            raise Refused(411, "the length of the request is missing")
        return  # no body
    if int(length) > MOST_JSON:
        raise Refused(413, f"a request of over {MOST_JSON} bytes; files are sent as uploads")
    if int(length) and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send JSON")


def _cookie(headers: dict[str, str], name: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _sealing(send: Send) -> Send:
    """Return `send` that adds HEADERS to every answer."""

    async def sealed(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sealed


async def _refuse(send: Send, refused: Refused, *, words: bool) -> None:
    """Say no: in words to a person who opened a page, as JSON to a program."""
    data = (refused.line if words else json.dumps({"error": refused.line})).encode()
    kind = "text/plain; charset=utf-8" if words else "application/json"
    await _answer(send, refused.status, data, {"content-type": kind})


async def _answer(send: Send, status: int, data: bytes, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in ({"content-length": str(len(data))} | headers).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": data})
