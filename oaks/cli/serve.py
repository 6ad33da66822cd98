"""`oaks serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oaks.cli import options
from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.errors import ArgumentError


@verb(extra="ray")
def serve(
    output: Output,
    *,
    bundle: options.BundleArgument = "small",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all addresses of the machine.")
    ] = "127.0.0.1",
    boxes: Annotated[
        str | None,
        typer.Option(help="'whole': the picture of a request without boxes is treated as one person."),
    ] = None,
    detector: options.DetectorOptions,
    engine: options.EngineOptions,
    nms: options.Nms = options.NMS,
    ray: Annotated[
        str | None,
        typer.Option(help="Ray cluster: HOST:PORT or auto. Default: Ray is started on this machine."),
    ] = None,
    workers: options.Workers = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Maximum people per pass. Default: 8 on a CPU, 64 on a GPU.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a request waits to be batched with others.")
    ] = 2.0,
    queue: Annotated[
        int,
        typer.Option(
            min=1,
            help="Maximum requests per Engine, running or waiting; further ones get 503 and Retry-After.",
        ),
    ] = 64,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Maximum bytes of a picture; larger ones get 413.")
    ] = 20 << 20,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Maximum pixels of a picture; larger ones get 413.")
    ] = 40_000_000,
    max_people: Annotated[int, typer.Option(min=1, help="Maximum people in a request; more get 422.")] = 100,
) -> None:
    """Serve a bundle over HTTP: POST a JPEG or PNG to /predict, get its poses as JSON.

    /openapi.json is the schema; / is a test page for the browser. On SIGINT or SIGTERM, the service refuses new
    requests, answers the accepted ones and exits.
    """
    from oaks.ray.requests import RequestLimits
    from oaks.ray.serving import serve as run

    if boxes not in (None, str(options.WHOLE)):
        raise ArgumentError(f"--boxes must be 'whole', got {boxes!r}; requests bring their own boxes")
    given = options.given_boxes(Path(boxes) if boxes else None, detector, bundle)

    def ready(address: str) -> None:
        output.item({"address": address, "bundle": bundle}, f"serving {bundle} at {address}; Ctrl-C stops it")

    run(
        bundle, host=host, port=port, address=ray, replicas=workers, boxes=given, nms=nms or None, queue=queue,
        wait=wait / 1000, bounds=RequestLimits(max_bytes, max_pixels, max_people), ready=ready, max_batch=max_batch,
        **vars(engine),
    )  # fmt: skip
    output.say("stopped")
