"""What `oaks export` does with its arguments."""

from __future__ import annotations

from collections.abc import Sequence

from oaks.bundle import Bundle
from oaks.engines.export.export import ExportError, export


def export_command(
    pose: str,
    *,
    ks: str | None,
    out: str,
    precisions: Sequence[str],
    crops: str | None,
    tolerances: Sequence[str],
    keep_float: Sequence[str],
    name: str | None,
    float_ks: bool,
) -> int:
    """Writes a bundle and says what is in it.

    Args:
        tolerances: "PRECISION=NUMBER" each.
        keep_float: none means the default; the others are as export has them.

    Returns:
        The exit code: 0, or 1 if a precision is too far from the torch network.

    Raises:
        ValueError: an argument does not fit.
        FileNotFoundError: a checkpoint or the crops are not there.
    """
    from rich.console import Console

    try:
        bundle = export(
            pose,
            ks,
            out=out,
            precisions=precisions,
            crops=crops,
            tolerance=dict(map(_tolerance, tolerances)),
            keep_float=list(keep_float) or None,
            name=name,
            float_ks=float_ks,
        )
    except ExportError as error:
        Console(stderr=True).print(f"oaks: {error}", style="red", markup=False, highlight=False)
        return 1
    _tell(bundle)
    return 0


def _tolerance(text: str) -> tuple[str, float]:
    precision, _, number = text.partition("=")
    try:
        return precision, float(number)
    except ValueError:
        raise ValueError(
            f"tolerance: PRECISION=NUMBER wanted, fp16=0.01 for instance, got {text!r}"
        ) from None


def _tell(bundle: Bundle) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for name, entry in bundle.files.items():
        console.print(f"{name:24} {entry['bytes'] / 1e6:8.2f} MB", markup=False)
    console.print(f"The bundle {bundle.name!r} is in {bundle.path}", markup=False, soft_wrap=True)


__all__ = ["export_command"]
