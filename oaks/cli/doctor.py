"""`oaks doctor`."""

from __future__ import annotations

from dataclasses import asdict

from oaks.cli.output import Output
from oaks.cli.verb import verb


@verb()
def doctor(output: Output) -> None:
    """Show what is installed, what works here, and what to install for the rest."""
    from rich.markup import escape
    from rich.table import Table

    from oaks.doctor import examine

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in examine():
        if output.json:
            output.item(asdict(finding), finding.name)
        mark = "[green]yes[/]" if finding.works else "[yellow]no[/]"
        table.add_row(mark, f"[bold]{finding.name}[/]", escape(finding.detail))
    output.table(table)
