"""Shared by all verbs: three options, the form of errors, and exit codes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from oaks.cli.output import LogLines, Output
from oaks.errors import ArgumentError, BackendUnavailable, BundleError, OaksError
from oaks.skipping import SkippedItems

DONE, SKIPPED, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done; incomplete, because items were skipped or the time ran out; the command cannot run as typed (a wrong
argument, a file not found, a package missing, a damaged bundle); it started and failed; interrupted by Ctrl-C."""

CODES = (
    "Exit codes: 0 done; 1 incomplete: items were skipped or the time ran out; 2 the command cannot run as typed; "
    "3 failed; 130 interrupted by Ctrl-C."
)

_UNUSABLE = (
    ArgumentError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError,
    ConnectionError, BackendUnavailable, BundleError,
)  # fmt: skip
"""Usage errors: arguments, the files they name, the packages they need. Any other ValueError is a bug of the program,
or of a package that it uses."""

_EXTRAS = {
    "training": ("torch", "lightning", "pydantic", "yaml", "safetensors", "tensorboard", "pycocotools"),
    "export": ("onnx", "onnxscript", "onnxconverter_common", "safetensors", "torch"),
    "val": ("pycocotools", "faster_coco_eval", "scipy", "matplotlib", "jinja2"),
    "video": ("av", "scipy"),
    "fit": ("lightgbm", "scipy", "pycocotools"),
    "ray": ("ray", "pyarrow", "fsspec", "starlette", "prometheus_client", "python_multipart"),
    "tensorrt": ("tensorrt", "pycuda", "filelock"),
    "openvino": ("openvino",),
}
"""The optional dependencies of pyproject.toml, and the modules that come with each."""

_SHARED = {
    "json": Annotated[
        bool, typer.Option("--json", help="Print one JSON object per item on standard output.")
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print details, log messages and tracebacks.")
    ],
}


def verb(*, extra: str | None = None) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Turn a function into a verb of the command line.

    The function's first parameter is an Output. A parameter annotated with a dataclass stands for one option
    per field. The function returns an exit code; None is DONE.

    Args:
        extra: extra of the package to name first when one of its modules is not installed.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., None]:
        parameters, groups = _parameters(function)

        @functools.wraps(function)
        def run(json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
            output = Output(json, quiet, verbose)
            handler = logging.StreamHandler()
            handler.setFormatter(LogLines("%(message)s"))
            logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
            typed = dict(given)
            for name, group in groups.items():
                fields = {field.name: given.pop(field.name) for field in dataclasses.fields(group)}
                given[name] = group(**fields)

            def call() -> int | None:
                _refuse_nan(typed)
                return function(output, **given)

            with SkippedItems() as skipped:
                code = _guarded(call, output, extra)
            raise typer.Exit(_told(skipped.items, code, output))

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")  # the terminal breaks the lines
        run.__doc__ = "\n\n".join([*(" ".join(text.split()) for text in paragraphs), CODES])
        del run.__wrapped__
        return run

    return decorate


def _refuse_nan(given: Mapping[str, Any]) -> None:
    """Refuse NaN as the value of an option: comparisons with it are always false, so that it would disable checks."""
    for name, value in given.items():
        if isinstance(value, float) and math.isnan(value):
            raise ArgumentError(f"--{name.replace('_', '-')} must be a number, got nan")


def _parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], dict[str, type]]:
    """Return the options of a verb, including the shared ones and those of its dataclasses, and these dataclasses."""
    hints = get_type_hints(function, include_extras=True)
    found: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        hint = hints[parameter.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            groups[parameter.name] = hint
            own = get_type_hints(hint, include_extras=True)
            found += [
                _keyword(field.name, own[field.name], _default(field)) for field in dataclasses.fields(hint)
            ]
        else:
            found.append(_keyword(parameter.name, hint, parameter.default))
    found += [_keyword(name, hint, False) for name, hint in _SHARED.items()]
    return found, groups


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    if get_origin(annotation) is Annotated and isinstance(default, tuple):
        kind = get_args(annotation)[0]
        default = list(default) if get_origin(kind) is list else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _default(field: dataclasses.Field) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _guarded(function: Callable[[], int | None], output: Output, extra: str | None) -> int:
    """Run a verb, print what it raises, and return its exit code."""
    try:
        return function() or DONE
    except KeyboardInterrupt:
        output.error(f"interrupted; {output.kept}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of standard output has ended, as in `oaks predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        brought_by = _extra_with(missing, extra)
        advice = f"; run: pip install 'oaks[{brought_by}]'" if brought_by else ""
        output.error(f"{missing} is not installed{advice}", error)
        return USAGE
    except _UNUSABLE as error:
        output.error(error, error)
        return USAGE
    except OSError as error:
        output.error(f"a file could not be written or read: {error}; {output.kept}", error)
        return FAILED
    except OaksError as error:
        output.error(error, error)
        return FAILED
    except MemoryError as error:
        output.error(f"memory is too short: {error or 'an allocation failed'}; {output.kept}", error)
        return FAILED
    except Exception as error:  # a bug, not a usage error
        advice = "" if output.verbose else "; run again with --verbose for the traceback"
        output.error(f"unexpected {type(error).__name__}: {error}{advice}", error)
        return FAILED


def _told(skipped: Mapping[str, str], code: int, output: Output) -> int:
    """Print how many items a verb has skipped, and return its exit code."""
    if not skipped:
        return code
    for name, reason in skipped.items():
        output.item({"item": name, "skipped": reason})
    named = ", ".join(list(skipped)[:10]) + (", ..." if len(skipped) > 10 else "")
    output.say(f"skipped {len(skipped)}: {named}")
    return SKIPPED if code == DONE else code


def _extra_with(module: str, first: str | None) -> str | None:
    """Return the extra that installs a module, preferring `first`; None if none does."""
    bringing = [extra for extra, modules in _EXTRAS.items() if module in modules]
    return first if first in bringing else next(iter(bringing), None)


__all__ = ["CODES", "DONE", "FAILED", "INTERRUPTED", "SKIPPED", "USAGE", "verb"]
