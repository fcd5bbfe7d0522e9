"""What the operator of a server decided, and what follows from it."""

from __future__ import annotations

import ipaddress
import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What a server is called that only this machine reaches."""

_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class Settings:
    """How a server was started.

    `folder` holds uploads and runs. `work` is what relative paths start from. `root` is the folder that paths on the
    server must lie in, None for any. `token` None: nobody is asked for one. `max_upload` is in bytes. `names`: further
    names that this machine is called by.
    """

    folder: Path
    work: Path
    host: str = LOOPBACK[0]
    port: int = 8000
    root: Path | None = None
    token: str | None = None
    max_upload: int = 2 * 10**9
    names: tuple[str, ...] = ()

    def is_called(self, host: str) -> bool:
        """Tell whether a request's Host header names this server: any other is a page that rebound its own name."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        if name in LOOPBACK or name in (self.host.lower(), *(each.lower() for each in self.names)):
            return True
        return not is_loopback(self.host) and (_is_address(name) or name == platform.node().lower())


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server that listens there."""
    return host in LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def parse_bytes(text: str, flag: str) -> int:
    """Parse `500MB`, `2GB` (1 GB = 10^9 bytes). Raises BadInput for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise BadInput(f"{flag} {text}: not a size; write 500MB or 2GB")
    return int(float(match[1]) * _SIZES[match[2].lower()])


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
