"""Names from outside (files, streams, labels) and counts as printable text, and file names made from such names."""

from __future__ import annotations

import os
import re

from oaks.addresses import redacted

_JOINERS = "\u200c\u200d"
"""Invisible characters that are part of ordinary words and emoji."""
_LONGEST = 200
"""Maximum bytes of a file name made from another name; most systems allow 255."""


def printable(text: str) -> str:
    """Return text that is safe to print: control characters and undecodable bytes become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text)


def shown(text: object) -> str:
    """Return anything as one printable line without the passwords of addresses."""
    return printable(" ".join(redacted(str(text)).split()))


def number_of(count: int, one: str, many: str = "") -> str:
    """Return a count and what is counted: "1 picture", "2 pictures".

    Args:
        count: how many there are.
        one: what one of them is called.
        many: what several are called; if empty, `one` with an s.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def file_name(name: str, *, ending: str = "") -> str:
    """Return a file name made from the name of another file or stream: printable, without folders, not too long.

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


__all__ = ["file_name", "number_of", "printable", "shown"]
