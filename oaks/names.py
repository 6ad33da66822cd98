"""Names from elsewhere, of files, streams and labels: how they are shown, and how files are named after them."""

from __future__ import annotations

import os
import re

from oaks.addresses import redacted

_JOINERS = "\u200c\u200d"
"""Invisible, and part of ordinary words and emoji."""
_LONGEST = 200
"""Bytes of a file's name that is made from another name; most systems take 255."""


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: control characters and undecodable bytes as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text)


def shown(text: object) -> str:
    """Anything in one line for people: printable, and without the passwords of addresses."""
    return printable(" ".join(redacted(str(text)).split()))


def file_name(name: str, *, ending: str = "") -> str:
    """A name for a file: that of another file or stream, of printable characters, without folders and not too long.

    Args:
        name: a file's name without its suffix, or an address.
        ending: what it must end with, such as "_2.jpg".
    """
    if "://" in name:
        name = re.split("[?#]", redacted(name))[0]
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    plain = "".join("_" if c in '<>:"|?*' or not (c.isprintable() or c in _JOINERS) else c for c in last)
    room = _LONGEST - len(os.fsencode(ending))
    return (os.fsencode(plain)[:room].decode("utf-8", "ignore").strip(" .") or "_") + ending


__all__ = ["file_name", "printable", "shown"]
