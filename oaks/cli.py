"""The command line: each verb reads its arguments, imports what it needs and hands over."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from oaks.errors import BackendUnavailable, BundleError

app = typer.Typer(
    name="oaks",
    help="Human poses with a score that means what it says, occluded or not.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    """Human poses with a score that means what it says, occluded or not."""
    if version:
        from oaks import __version__

        typer.echo(f"oaks {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """Say what is installed, what works here, and what is missing for the rest."""
    from oaks.doctor import main as examine

    raise typer.Exit(examine())


def main() -> None:
    """Runs the command line. What the user can put right is said in one line, without a traceback."""
    try:
        app()
    except (BackendUnavailable, BundleError, FileNotFoundError, PermissionError, ValueError) as error:
        typer.secho(f"oaks: {error}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
