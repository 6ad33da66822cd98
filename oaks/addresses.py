"""Addresses of streams, without the passwords in them."""

from __future__ import annotations

import re

_START = r"(:[/\\]+[^\s:/\\?#]*)"
"""Up to the user's name, which may be a mail address. A path made of an address has one slash; on Windows a backslash."""
_PORT = r"\d{1,5}[/\\]"
"""What follows a host instead of a password. A "/" ends both; before it, digits alone are a port."""
# Up to the last "@": a password may hold any other character, and in an address alone white space too.
_USER = re.compile(rf"{_START}:(?!{_PORT})\S*@")
_USER_ALONE = re.compile(rf"{_START}:(?!{_PORT}).*@", re.DOTALL)
_NAMES = (
    r"(?:[\w.%\[\]-]*(?:pass|pwd|psw|token|secret|key|auth|sig|credential|sess|ticket|jwt|bearer)[\w.%\[\]-]*"
    r"|loginpas|pw|sid|pin|otp|code)"
)
_PARAMETER = re.compile(rf"(?i)([?&;#]{_NAMES}=)[^&#;\s'\"]*")
_PARAMETER_ALONE = re.compile(rf"(?i)([?&;#]{_NAMES}=)[^&#;]*")
# Some cameras take them in the path, as user=admin_password=abc_channel=1.
_IN_PATH = re.compile(r"(?i)([/_,](?:password|passwd|pass|pwd|token)=)[^/?&#;\s'\"]*")


def redacted(text: str, *, alone: bool = False) -> str:
    """Return the text with passwords, and parameters that may be secret, replaced by *** in addresses.

    rtsp://user:password@host/stream?token=abc becomes rtsp://user:***@host/stream?token=***.

    Args:
        text: any text.
        alone: whether the text is nothing but an address, so that white space and quotes belong to it.
    """
    if ":/" not in text and ":\\" not in text:
        return text
    text = (_USER_ALONE if alone and "://" in text else _USER).sub(r"\1:***@", text)
    text = (_PARAMETER_ALONE if alone and "://" in text else _PARAMETER).sub(r"\1***", text)
    return _IN_PATH.sub(r"\1***", text)


__all__ = ["redacted"]
