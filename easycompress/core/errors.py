"""Every way in which easycompress says no.

EasyCompressError
|- BadInput            exit 2   the input or the request is wrong; the text says what, where and what to do instead
|  `- Crashed           exit 2   the user's own code raised; the command line shows its traceback below the one line
`- CannotCompress      exit 3   this model can't be compressed that way; the text names the layer or operator

A goal that was not met is not an error: it is a verdict (see core.outcome).
"""

from __future__ import annotations


class EasyCompressError(Exception):
    """Base class. Its text is one line, written for the user, even where it repeats words that had more."""

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.splitlines()))


class BadInput(EasyCompressError):
    """The user's input is wrong, missing or contradictory."""

    exit_code = 2


class Crashed(BadInput):
    """The user's own code raised. `__cause__` is what it raised, with its traceback."""


class CannotCompress(EasyCompressError):
    """The model can't be compressed that way."""

    exit_code = 3


def printable(text: str) -> str:
    """Return a text, as long as before, without what a terminal takes for an order: names in files hold anything."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in text)


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the text of any exception as one line of at most `limit` characters."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
