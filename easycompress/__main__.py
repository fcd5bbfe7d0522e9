"""The command, also as `python -m easycompress`: Ctrl-C is told in one line while it is still being imported, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from easycompress.cli import main as run  # noqa: PLC0415 - a third of a second, in which Ctrl-C may come
    except KeyboardInterrupt:
        sys.stderr.write("easycompress: stopped\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
