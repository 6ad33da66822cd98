"""Items that are skipped are counted, whatever the logging is set to and whatever runs beside."""

from __future__ import annotations

import json
import logging
import threading

import pytest
import typer
from typer.testing import CliRunner

from oaks.cli.output import Output
from oaks.cli.verb import verb
from oaks.skipping import SkippedItems, skip, skip_together
from oaks.video.threads import ReadAhead, WriteBehind


@pytest.fixture
def quiet_log():
    log = logging.getLogger("oaks")
    level = log.level
    log.setLevel(logging.ERROR)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    log.setLevel(level)


@pytest.mark.usefixtures("quiet_log")
def test_items_are_counted_without_a_log():
    with SkippedItems() as skipped:
        assert skip("a.jpg", ValueError("a.jpg: damaged")) == "damaged"
    assert skipped.items == {"a.jpg": "damaged"}


def test_an_item_is_logged_once_and_afterwards_again(caplog):
    with SkippedItems() as skipped:
        for reason in ("damaged", "damaged", "too large"):
            skip("a.jpg", reason)
    assert skipped.items == {"a.jpg": "damaged"}
    assert caplog.messages == ["skipped a.jpg: damaged"]
    skip("a.jpg", "damaged")
    assert skipped.items == {"a.jpg": "damaged"}
    assert len(caplog.messages) == 2


def test_many_items_are_counted_each_and_logged_in_one_line(caplog):
    with SkippedItems() as skipped:
        skip("3.heic", "damaged")
        skip_together([f"{n}.heic" for n in range(10)], "files in ftp://me:pw@h", "not read")
        skip_together(["1.heic"], "files", "not read")
    assert list(skipped.items) == ["3.heic", *(f"{n}.heic" for n in range(10) if n != 3)]
    assert caplog.messages == [
        "skipped 3.heic: damaged",
        "skipped 9 files in ftp://me:***@h: not read: 0.heic, 1.heic, 2.heic, ...",
    ]


def test_nested_collectors_all_collect():
    with SkippedItems() as outer:
        skip("a.jpg", "first")
        with SkippedItems() as inner:
            skip("a.jpg", "second")
            skip("b.jpg", "damaged")
        skip("c.jpg", "damaged")
    assert list(outer.items) == ["a.jpg", "b.jpg", "c.jpg"]
    assert list(inner.items) == ["a.jpg", "b.jpg"]


def test_parallel_collectors_do_not_share():
    together, found = threading.Barrier(2), {}

    def work(name: str) -> None:
        with SkippedItems() as skipped:
            together.wait(60)
            skip(name, "damaged")
            together.wait(60)
        found[name] = list(skipped.items)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a.jpg", "b.jpg")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {"a.jpg": ["a.jpg"], "b.jpg": ["b.jpg"]}


def test_items_skipped_by_stream_threads_are_counted():
    with SkippedItems() as skipped:
        list(ReadAhead((skip(name, "damaged") for name in ["a.jpg"]), 1))
        behind = WriteBehind(lambda name: skip(name, "damaged"), 1)
        behind("b.jpg")
        behind.close()
    assert list(skipped.items) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_passwords_of_skipped_addresses_are_not_printed(options):
    address = "ftp://user:pw@host/a.heic"

    @verb()
    def skips(output: Output) -> None:
        """Skip."""
        skip(address, f"{address}: of another kind than https://me:pw@host")
        output.item({"pictures": [{address: address}], "score": 0.1, "name": "a\u2028\u00fc"}, address)

    only = typer.Typer()
    only.command()(skips)
    result = CliRunner().invoke(only, options)
    assert result.exit_code == 1
    assert "pw" not in result.output
    assert "ftp://user:***@host/a.heic" in result.stdout
    if options:
        named, told = map(json.loads, result.stdout.splitlines())
        shown = "ftp://user:***@host/a.heic"
        assert named == {"pictures": [{shown: shown}], "score": 0.1, "name": "a\u2028\u00fc"}
        assert told == {"item": shown, "skipped": "of another kind than https://me:***@host"}
