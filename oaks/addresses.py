"""Addresses of streams, without the passwords in them."""

from __future__ import annotations

import re

# Up to the last "@": a password may hold any other character.
_USER = re.compile(r"(://[^\s:@/?#]*):\S*@")
_PARAMETER = re.compile(
    r"(?i)([?&;#](?:[\w.%-]*(?:pass|pwd|token|secret|key|auth|sig|credential|session|ticket|jwt)[\w.%-]*|pw|code)=)"
    r"[^&#;\s'\"]*"
)


def redacted(text: str) -> str:
    """Return the text with passwords, and parameters that may be secret, replaced by *** in addresses.

    rtsp://user:password@host/stream?token=abc becomes rtsp://user:***@host/stream?token=***.
    """
    if "://" not in text:
        return text
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1:***@", text))


__all__ = ["redacted"]
