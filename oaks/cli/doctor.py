"""`oaks doctor`."""

from __future__ import annotations

from dataclasses import asdict

from oaks.cli.output import Output
from oaks.cli.verb import verb


@verb()
def doctor(output: Output) -> None:
    """Show what is installed, what works on this machine, and what to install for the rest."""
    from rich.table import Table
    from rich.text import Text

    from oaks.doctor import examine

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in examine():
        output.item(asdict(finding))
        mark = Text("yes", style="green") if finding.works else Text("no", style="yellow")
        table.add_row(mark, Text(finding.name, style="bold"), finding.detail)
    output.table(table)
