"""External names, as terminals, files and reports show them."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import PureWindowsPath

import bundles
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from PIL import Image

from oaks.cli.main import main
from oaks.cli.output import LogLines, Output
from oaks.files import replacing, write_json
from oaks.names import file_name, number_of, printable, shown
from oaks.progress import plain_console
from oaks.structured import read_json


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("people 1.jpg", "people 1.jpg"), ("Ä日本.jpg", "Ä日本.jpg"), ("\x1b[2J.jpg", "\\x1b[2J.jpg"), ("a\nb", "a\\nb"),
        ("\udcff.jpg", "\\udcff.jpg"), ("\u202egpj.exe", "\\u202egpj.exe"), ("\x9b31m", "\\x9b31m"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"), ("[red]a[/]", "[red]a[/]"),
    ],
)  # fmt: skip
def test_control_characters_in_names_are_escaped(text, expected):
    assert printable(text) == expected


def test_a_line_is_one_line_without_passwords():
    assert shown("a\n  b\t\x07 rtsp://u:p@h/s?token=t") == "a b \\x07 rtsp://u:***@h/s?token=***"


@pytest.mark.parametrize(
    ("name", "ending", "expected"),
    [
        ("a", ".jpg", "a.jpg"), ("../../etc/passwd", "", "passwd"), ("a\\b", "", "b"), ("..", ".png", "_.png"),
        ("", "", "_"), ("a\0b\x1b", "", "a_b_"), ('<a>:"|?*', "", "_a______"), ("rtsp://u:p@host/cam?token=x", "", "cam"),
        ("rtsp://host", "_2.jpg", "host_2.jpg"), ("a" * 300, ".jpg", "a" * 196 + ".jpg"), ("ä" * 200, "", "ä" * 100),
        ("日" * 200, "_2.jpg", "日" * 64 + "_2.jpg"), ("\udcff", "", "_"),
    ],
)  # fmt: skip
def test_file_names_are_made_from_any_name(name, ending, expected):
    assert file_name(name, ending=ending) == expected


@given(st.text(max_size=400))
@example("\ud800")
def test_every_name_makes_one_that_can_be_created(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    made = file_name(name, ending="_2.jpg")
    (folder / made).write_bytes(b"")
    assert [path.name for path in folder.iterdir()] == [made]
    assert len(os.fsencode(made)) <= 200


def test_undecodable_names_survive_json(tmp_path):
    """The bytes of a file's name that are no UTF-8 come as lone surrogates."""
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "a.json", {"name": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="ascii")) == {"name": name}
    assert read_json(tmp_path / "a.json") == {"name": name}


def test_brackets_in_names_are_no_markup():
    console = plain_console(stderr=False)
    console.file = io.StringIO()
    console.print("[red]a[/red] :smile: [link=x]")
    assert console.file.getvalue().strip() == "[red]a[/red] :smile: [link=x]"


def test_output_and_log_show_names_by_one_rule(capsys):
    output = Output()
    for write in (output.say, output.warn, output.error):
        write("\x1b[2J rtsp://u:p@h")
    Output(json=True).item({"name": "\x9b\udcff\u202e", "path": "a"}, "")
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert told.out.splitlines()[0] == "\\x1b[2J rtsp://u:***@h"
    assert told.err.splitlines() == ["\\x1b[2J rtsp://u:***@h", "oaks: \\x1b[2J rtsp://u:***@h"]
    assert json.loads(told.out.splitlines()[1]) == {"name": "\x9b\udcff\u202e", "path": "a"}
    Output(json=True).item({"path": PureWindowsPath("rtsp://u:p@h/s").as_posix(), "shown": "rtsp:\\u:p@h\\s"})
    shown_item = {"path": "rtsp:/u:***@h/s", "shown": "rtsp:\\u:***@h\\s"}
    assert json.loads(capsys.readouterr().out) == shown_item
    record = logging.LogRecord("oaks", logging.WARNING, "", 0, "%s: skipped", ("\x1b]0;x\x07",), None)
    assert LogLines("%(message)s").format(record) == "\\x1b]0;x\\x07: skipped"


NAMES = [
    b"caf\xe9.png",
    b"\x1b[31mred.png",
    "ä".encode() * 120 + b".png",
    b"b" * 250 + b".png",
    b"[bold]x.png",
]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_predict_takes_pictures_of_any_name(tmp_path, capfd):
    folder = tmp_path / "pictures"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(buffer, "PNG")
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(buffer.getvalue())
    bundle = bundles.write(tmp_path / "bundle").path
    with pytest.raises(SystemExit) as ended:
        main(
            f"predict {folder} --bundle {bundle} --boxes whole --out {tmp_path / 'out'} --backend onnxruntime".split()
        )
    told = capfd.readouterr()
    assert ended.value.code == 0, told.err
    assert "\x1b" not in told.out + told.err
    header = read_json(tmp_path / "out" / "results.header.json")
    assert sorted(os.fsencode(os.path.basename(path)) for path in header["images"]) == sorted(NAMES)
    assert header["complete"] is True
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == len(NAMES)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, mask, mode):
    from oaks.files import replacing_folder

    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a") as file:
            file.write(b"a")
        with replacing_folder(tmp_path / "b") as staged:
            (staged / "c").write_bytes(b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    with replacing(path) as file:
        file.write(b"a")
    assert path.read_bytes() == b"a"
    with pytest.raises(OSError, match="too long"), replacing(tmp_path / ("n" * 256)):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_count_agrees_with_its_noun():
    assert [number_of(n, "picture") for n in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
    assert [number_of(n, "person", "people") for n in (1, 21)] == ["1 person", "21 people"]
