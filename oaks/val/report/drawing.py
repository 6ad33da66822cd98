"""Check of drawings that are read from a report's folder: only elements that Matplotlib draws may enter the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from oaks.errors import ArgumentError

_SVG = "http://www.w3.org/2000/svg"
_METADATA = (
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://creativecommons.org/ns#", "http://purl.org/dc/elements/1.1/",
)  # fmt: skip
_ELEMENTS = frozenset([
    "svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect", "circle", "ellipse", "line", "polyline",
    "polygon", "text", "tspan", "title", "desc", "image", "linearGradient", "radialGradient", "stop", "marker", "pattern",
    "symbol",
])  # fmt: skip
_PROLOG = re.compile(
    r'\s*(<\?xml version="1\.0"( encoding="utf-8")?( standalone="(no|yes)")?\?>)?'
    r'\s*(<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1\.1//EN"\s+"http://www\.w3\.org/Graphics/SVG/1\.1/DTD/svg11\.dtd">)?\s*'
)
_COMMENT = re.compile(r"<!--[^<>]*-->")
_OUTSIDE = re.compile(r"(?i)javascript:|@import|expression\(|url\((?!['\"]?#)")
"""In attributes and style sheets: scripts, and addresses outside the drawing."""
_PICTURE = "data:image/png;base64,"


def check_drawing(svg: str, label: str) -> None:
    """Refuse a drawing with scripts, external links, or markup that HTML and XML read differently.

    Args:
        svg: the drawing.
        label: what messages call it.

    Raises:
        ArgumentError: the drawing holds such content, or is no SVG.
    """
    found = _PROLOG.match(svg)
    body = svg[found.end() :] if found is not None else svg
    if (stray := re.search(r"<[!?]", _COMMENT.sub("", body))) is not None:
        raise _refused(label, _COMMENT.sub("", body)[stray.start() :])
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError) as error:
        raise ArgumentError(f"{label} must be an SVG drawing, got something else: {error}") from error
    for element in root.iter():
        space, _, name = str(element.tag).removeprefix("{").rpartition("}")
        if not (space in _METADATA or (space == _SVG and name in _ELEMENTS)):
            raise _refused(label, name)
        if name == "style" and _OUTSIDE.search(element.text or ""):
            raise _refused(label, "a style sheet with external links")
        for key, value in element.attrib.items():
            attribute = key.rpartition("}")[2].lower()
            refers = attribute in ("href", "src") and not value.startswith(("#", _PICTURE))
            if attribute.startswith("on") or _OUTSIDE.search(value) or (refers and space == _SVG):
                raise _refused(label, f"{attribute}={value}")


def _refused(label: str, what: str) -> ArgumentError:
    return ArgumentError(f"{label} must be a drawing without active content, got one with {what[:32]!a}")


__all__ = ["check_drawing"]
