"""From the flags of `easycompress serve` to a server that listens until Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.web.settings import Settings, is_loopback, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import uvicorn

FOLDER = "easycompress-runs"

LOCK = "server.lock"

SHORTEST_TOKEN = 16

EXTRA = 'the web page needs more packages: pip install "easycompress[web]"'

FAREWELL = 3
"""Seconds that open connections have when the server ends."""


def make_settings(
    host: str,
    port: int,
    folder: str | None,
    root: str | None,
    token: str | None,
    max_upload: str,
    names: tuple[str, ...],
) -> Settings:
    """Return the settings that flags say. Off loopback, or with a token, there is a token and a root."""
    work = Path.cwd()
    if not 0 <= port < 1 << 16:
        raise BadInput(f"--port {port}: not a port; write a number from 1 to 65535, or 0 for any free one")
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isalnum()):
        raise BadInput(f"--token: write at least {SHORTEST_TOKEN} letters and digits, or leave it out off loopback")
    open_ = is_loopback(host) and token is None
    if root is not None and not Path(root).is_dir():
        raise BadInput(f"--root {root}: no such folder; name the one that models and data lie in")
    readable = Path(root).resolve() if root is not None else None if open_ else work
    return Settings(
        folder=Path(folder or FOLDER).absolute(), work=work, host=host, port=port, root=readable,
        token=token if is_loopback(host) else token or secrets.token_hex(16),
        max_upload=parse_bytes(max_upload, "--max-upload"), names=names,
    )  # fmt: skip


def serve(settings: Settings, say: Callable[[str], None], *, browser: bool) -> None:
    """Listen until Ctrl-C. Raises BadInput: the extra is missing, the port is taken, another server has the folder."""
    listening = bind(settings)
    with contextlib.closing(listening), held(settings.folder):
        port = int(listening.getsockname()[1])
        server = make_server(Settings(**{**vars(settings), "port": port}))
        address = url(settings, port)
        say(f"easycompress is at {address}")
        say(f"runs are kept in {settings.folder}; Ctrl-C ends it, and what is at work goes on at the next start")
        if browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        say("stopped")


def make_server(settings: Settings) -> uvicorn.Server:
    """Return the server, not started yet. Raises BadInput without the extra."""
    try:
        import uvicorn  # noqa: PLC0415 - of an extra

        from easycompress.web.app import make_app  # noqa: PLC0415 - imports fastapi, of an extra
    except ImportError as error:
        raise BadInput(EXTRA) from error
    config = uvicorn.Config(
        make_app(settings), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=FAREWELL, ws="none",
    )  # fmt: skip
    return uvicorn.Server(config)


def url(settings: Settings, port: int) -> str:
    """Return the address to open, with the token where there is one."""
    everywhere = settings.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    host = socket.gethostname() if everywhere else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={settings.token}" if settings.token else "")


def bind(settings: Settings) -> socket.socket:
    """Take the port. Raises BadInput where that can't be."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((settings.host, settings.port))
        taken.listen()  # from here on a browser waits for an answer
    except OSError as error:
        taken.close()
        where = f"--host {settings.host} --port {settings.port}"
        raise BadInput(f"{where}: can't listen there ({error.strerror or error}); choose another --port") from error
    return taken


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other servers out of a folder of runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise BadInput(f"--folder {folder}: another server has it; open that one, or choose another folder") from error
    except PermissionError as error:
        raise BadInput(f"--folder {folder}: can't be written to; choose another folder") from error
