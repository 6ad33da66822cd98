"""The command `oaks`: its verbs, usage errors and exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from oaks.cli import val
from oaks.cli.benchmark import benchmark
from oaks.cli.demo import demo
from oaks.cli.doctor import doctor
from oaks.cli.export import export
from oaks.cli.finetune import finetune
from oaks.cli.fit import fit, import_, rescore
from oaks.cli.options import with_ray_address
from oaks.cli.output import Output
from oaks.cli.plan import plan
from oaks.cli.predict import predict
from oaks.cli.render import render, render_video
from oaks.cli.serve import serve
from oaks.cli.track import track
from oaks.cli.train import pack, train, train_series
from oaks.cli.verb import CODES, INTERRUPTED

app = typer.Typer(
    name="oaks",
    help=f"2D human pose estimation with calibrated, occlusion-aware scores.\n\n{CODES}",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


class _Predict(TyperCommand):
    """`oaks predict`, whose option --ray may be given without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_ray_address(args))


_POSES, _SCORES, _TRAINING, _MODELS = (
    "Find poses",
    "Evaluate and calibrate scores",
    "Train",
    "Models and this machine",
)

app.command(cls=_Predict, rich_help_panel=_POSES)(predict)
app.add_typer(val.app, name="val", rich_help_panel=_SCORES)
for panel, functions in {
    _POSES: (track, serve, demo),
    _SCORES: (fit, rescore),
    _TRAINING: (train, train_series, finetune, pack, render, render_video),
    _MODELS: (export, plan, benchmark, doctor),
}.items():
    for function in functions:
        app.command(rich_help_panel=panel)(function)
app.command("import", rich_help_panel=_MODELS)(import_)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Print the version if asked for."""
    if version:
        from oaks import __version__

        print(f"oaks {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    for stream in (sys.stdout, sys.stderr):  # for file names that the terminal's encoding cannot represent
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(sys.argv[1:] if arguments is None else list(arguments), "oaks", standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # Click's usage errors have a context
            raise
        code = _usage(error)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> int:
    """Print a usage error in one line; without any arguments print the help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = context.command_path if context is not None else "oaks"
        Output().error(f"{error.format_message().rstrip('.')}; see: {command} --help")
    return error.exit_code


if __name__ == "__main__":
    main()
