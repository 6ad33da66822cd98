"""Bundles: what loads, what is refused, and that errors name the file and the field."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import bundles
import jsonschema
import numpy as np
import onnx
import pytest

import oaks
from oaks import Bundle, BundleError, bundle, ops
from oaks.limits import BundleLimits

SCHEMA = json.loads((Path(oaks.__file__).parent / "bundle.schema.json").read_text(encoding="utf-8"))
VALID = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def folder(tmp_path):
    bundles.write(tmp_path / "tiny", half=True, extra={"AP": 0.5})
    return tmp_path / "tiny"


def read(folder):
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))


def change(folder, value, *place):
    """Set a field of bundle.json, or remove it if the value is `...`."""
    content = read(folder)
    within = content
    for key in place[:-1]:
        within = within[key]
    if value is ...:
        del within[place[-1]]
    else:
        within[place[-1]] = value
    (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def test_load_reads_every_field(folder):
    loaded = Bundle.load(folder)
    assert loaded.name == "tiny"
    assert loaded.skeleton == bundles.RGB
    assert loaded.pose.size == bundles.SIZE
    assert loaded.pose.heatmap_size == (12, 16)
    assert (loaded.pose.mean, loaded.pose.std) == ((0, 0, 0), (255, 255, 255))
    assert (loaded.pose.color, loaded.pose.stride, loaded.pose.padding) == ("rgb", 4, 1.25)
    assert (loaded.pose.alignment, loaded.pose.refine) == ("half_pixel", "second_peak")
    assert loaded.pose.blur_sigma is None
    assert (loaded.license, loaded.score) == ("CC0-1.0", None)
    assert loaded.description["extra"] == {"AP": 0.5}
    assert loaded.visibility.scale == 1
    assert loaded.visibility.bias == 0
    assert loaded.scorer.kind == "ks_net"
    assert loaded.scorer.estimator == loaded.estimator
    assert loaded.plans == ()


def test_a_bundle_is_shown_by_name_and_path(folder):
    loaded = Bundle.load(folder)
    assert repr(loaded) == f"Bundle(name='tiny', path={str(loaded.path)!r})"


def test_a_bundle_can_be_copied_and_sent_to_another_process(folder):
    loaded = Bundle.load(folder)
    for other in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert (other.sha256, other.files, other.description) == (
            loaded.sha256,
            loaded.files,
            loaded.description,
        )
        assert other.network("pose").read() == loaded.network("pose").read()
        with pytest.raises(TypeError):
            other.files["pose.fp32.onnx"] = {}


def test_checksums_and_sizes_are_those_of_the_files(folder):
    loaded = Bundle.load(folder)
    assert set(loaded.files) == {"pose.fp32.onnx", "pose.fp16.onnx", "ks.fp32.onnx", "ks.fp16.onnx"}
    for name, entry in loaded.files.items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert loaded.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("top", ["", "tiny/"])
def test_a_zip_is_read_like_its_folder(folder, tmp_path, top):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, top + file.name)
    packed, plain = Bundle.load(path), Bundle.load(folder)
    assert packed.description == plain.description
    assert packed.read("pose.fp32.onnx") == plain.read("pose.fp32.onnx")
    with packed.open_path("ks.fp32.onnx") as opened:
        assert opened.read_bytes() == (folder / "ks.fp32.onnx").read_bytes()
    assert not opened.exists()


def test_a_shipped_name_is_found_unless_a_bundle_lies_there(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    assert bundle.shipped() == ["tiny"]
    (tmp_path / "elsewhere" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Bundle.load("tiny").path == tmp_path / "tiny"
    monkeypatch.chdir(tmp_path)
    assert Bundle.load("tiny").path == Path("tiny")


def test_every_shipped_bundle_loads_and_fits_the_schema():
    assert "small" in bundle.shipped()
    for name in bundle.shipped():
        jsonschema.validate(dict(Bundle.load(name).description), SCHEMA)


def test_the_shipped_bundles_are_small_enough_to_ship():
    """30 MB together, and no file over 15 MB."""
    folders = [bundle.SHIPPED / name for name in bundle.shipped()]
    sizes = {path: path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) > 1e6, "no bundle is there"
    assert max(sizes.values()) <= 15e6, max(sizes, key=sizes.get)
    assert sum(sizes.values()) <= 30e6


def example() -> dict:
    """The full example of docs/bundles.md."""
    page = (Path(__file__).parent.parent / "docs" / "bundles.md").read_text(encoding="utf-8")
    text = re.search(r"```jsonc\n(.*?)```", page, re.DOTALL)[1]
    return json.loads(re.sub(r"\s+//[^\n]*", "", text))


def load_description(folder, content):
    """Load a description whose files all exist, with whatever networks they hold."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    small = bundles.ks_network(3, bundles.SIZE)
    for name, entry in content["files"].items():
        data = small + b"\x32\x01" + bytes([len(entry["sha256"]) & 127])  # a doc_string, valid ONNX too
        (folder / name).write_bytes(data)
        entry["sha256"], entry["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    content["scorer"]["estimator"]["network"] = content["files"]["pose.fp16.onnx"]["sha256"]
    (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    return Bundle.load(folder)


def test_the_documented_example_loads(tmp_path):
    loaded = load_description(tmp_path / "small", example())
    assert loaded.pose.refine == "dark"
    assert loaded.precisions("pose") == ["fp32", "fp16", "int8"]
    assert loaded.network("pose", "fp32").stored == "fp16"
    assert [plan.flavor for plan in loaded.plans] == ["tensorrt_rtx"]
    assert loaded.network("pose", "fp16").plans("tensorrt_rtx") == list(loaded.plans)
    assert loaded.network("pose", "fp32").plans("tensorrt_rtx") == []
    assert Bundle.load(loaded.path, plans=False).plans == ()


def test_every_field_of_the_schema_is_in_the_documented_example_or_its_tables():
    page = (Path(__file__).parent.parent / "docs" / "bundles.md").read_text(encoding="utf-8")

    def names(schema):
        for name, entry in schema.get("properties", {}).items():
            yield name
            yield from names(entry)
        for part in (*schema.get("anyOf", ()), *schema.get("$defs", {}).values()):
            yield from names(part)
        for part in ("items", "additionalProperties"):
            if isinstance(schema.get(part), dict):
                yield from names(schema[part])

    found = set(names(SCHEMA))
    assert len(found) > 50
    assert {name for name in found if f"`{name}`" not in page and f'"{name}"' not in page} == set()


def test_a_detector_alone_is_a_bundle(tmp_path):
    (tmp_path / "people.fp16.onnx").write_bytes(bundles.ks_network(3, bundles.SIZE, half=True))
    detector = {
        "kind": "centers", "files": {"fp16": "people.fp16.onnx"}, "stride": 4, "threshold": 0.4,
        "input": {"size": [320, 256], "mean": [0, 0, 0], "std": [1, 1, 1], "color": "bgr"},
    }  # fmt: skip
    made = bundle.write(
        tmp_path, {"name": "detector", "license": "CC0-1.0", "networks": {"detector": detector}}
    )
    assert made.detector.size == (320, 256)
    assert (made.detector.threshold, made.detector.nms, made.detector.color) == (0.4, 0.65, "bgr")
    assert made.precisions("detector") == ["fp32", "fp16"]
    assert not made.has("pose")
    for missing in ("pose", "ks", "skeleton", "estimator"):
        with pytest.raises(ValueError, match=r"bundle must have .*, got 'detector'"):
            getattr(made, missing)
    with pytest.raises(ValueError, match=r"bundle must have a pose network"):
        oaks.Engine(made)


def test_two_bundles_share_a_detector(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path / "shipped")
    test_a_detector_alone_is_a_bundle(make(tmp_path / "shipped" / "detector"))
    made = bundles.write(tmp_path / "tiny")
    change(made.path, {"bundle": "detector"}, "networks", "detector")
    loaded = Bundle.load(made.path)
    assert loaded.has("detector")
    assert loaded.detector.threshold == 0.4
    network = loaded.network("detector", "fp32")
    assert network.label == f"{tmp_path / 'shipped' / 'detector'}/people.fp16.onnx"
    assert onnx.load_from_string(network.read()).graph.input[0].type.tensor_type.elem_type == 1
    change(made.path, {"bundle": "elsewhere"}, "networks", "detector")
    with pytest.raises(
        BundleError, match=r"networks.detector.bundle must be a shipped bundle, .*'elsewhere'"
    ):
        Bundle.load(made.path).network("detector")
    change(made.path, {"bundle": "../tiny"}, "networks", "detector")
    with pytest.raises(BundleError, match=r"networks\.detector\.bundle must be text that matches"):
        Bundle.load(made.path)


def make(folder):
    folder.mkdir(parents=True)
    return folder


def test_a_scorer_without_a_pose_network_is_a_bundle(tmp_path):
    for name in ("similarity.forest", "visibility.forest"):
        (tmp_path / name).write_bytes(b"trees")
    scorer = {
        "kind": "forest",
        "files": {"similarity": "similarity.forest", "visibility": "visibility.forest"},
        "estimator": {"name": "somebody's", "keypoints": list(bundles.RGB.keypoints)},
        "features": {"version": 1},
    }  # fmt: skip
    described = {"name": "s", "license": "CC0-1.0", "skeleton": bundles.RGB.to_dict(), "scorer": scorer}
    made = bundle.write(tmp_path, described)
    assert (made.scorer.kind, made.scorer.features) == ("forest", {"version": 1})
    assert made.read(made.scorer.files["similarity"]) == b"trees"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("network",), "0" * 64, "their network differ"),
        (("decoder",), {"kind": "heatmaps", "alignment": "udp", "refine": "second_peak"}, "their decoder differ"),
        (("keypoints",), ["red", "blue", "green"], "their keypoints differ"),
    ],
)  # fmt: skip
def test_a_scorer_of_another_estimator_is_refused_by_name(folder, place, value, message):
    change(folder, "another", "scorer", "estimator", "name")
    change(folder, value, "scorer", "estimator", *place)
    with pytest.raises(BundleError, match=rf"a scorer of 'another' for 'tiny': {message}"):
        Bundle.load(folder)


def test_a_scorer_may_be_fitted_to_any_file_of_the_pose_network(folder):
    for name in ("pose.fp32.onnx", "pose.fp16.onnx"):
        change(folder, read(folder)["files"][name]["sha256"], "scorer", "estimator", "network")
        Bundle.load(folder)


def test_missing_bundles_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"bundle must be .*'nowhere'"):
        Bundle.load("nowhere")
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        Bundle.load(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(BundleError, match=r"text\.zip"):
        Bundle.load(tmp_path / "text.zip")


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_file_is_named(folder, damage):
    path = folder / "pose.fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    if damage == "gone":
        path.unlink()
    with pytest.raises(BundleError, match=r"pose\.fp32\.onnx (is damaged|cannot be read)"):
        Bundle.load(folder)


def test_a_file_that_changes_after_loading_is_found(folder):
    loaded = Bundle.load(folder)
    (folder / "ks.fp16.onnx").write_bytes(b"another")
    with pytest.raises(
        BundleError, match=r"ks\.fp16\.onnx is damaged or another file: it must have \d+ bytes"
    ):
        loaded.read("ks.fp16.onnx")
    (folder / "ks.fp16.onnx").write_bytes(bytes(loaded.files["ks.fp16.onnx"]["bytes"]))
    with pytest.raises(BundleError, match=r"ks\.fp16\.onnx is damaged or another file: its SHA-256"):
        loaded.network("ks", "fp16").read()


@pytest.mark.parametrize("at", range(30, 1000, 60))
def test_a_damaged_zip_is_a_bundle_error(folder, tmp_path, at):
    path = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", folder))
    content = bytearray(path.read_bytes())
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    path.write_bytes(content)
    with contextlib.suppress(BundleError):  # and nothing else; some bytes decide nothing
        Bundle.load(path)


def test_extra_entries_in_a_zip_are_ignored(folder, tmp_path):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"tiny/{file.name}")
            archive.writestr(f"__MACOSX/tiny/._{file.name}", b"")
    assert Bundle.load(path).name == "tiny"


def test_a_zip_bomb_is_refused_before_it_is_inflated(folder, tmp_path):
    """40 MB of zeros take 40 kB; bundle.json says 7 bytes, so no more than those are inflated."""
    content = read(folder)
    content["files"]["pose.fp32.onnx"]["bytes"] = 7
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", json.dumps(content))
        for name in content["files"]:
            archive.writestr(
                name, bytes(40_000_000) if name == "pose.fp32.onnx" else (folder / name).read_bytes()
            )
    with pytest.raises(
        BundleError, match=r"pose\.fp32\.onnx cannot be read: it must have at most 7 bytes, got 40000000"
    ):
        Bundle.load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_are_refused(folder, tmp_path, method):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read: it must be stored or deflated"):
        Bundle.load(path)


def test_a_zip_of_very_many_entries_is_refused_before_they_are_listed(folder, tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        for index in range(200):
            archive.writestr(f"{index:0100}", b"")
    assert Bundle.load(path).name == "tiny"
    with pytest.raises(BundleError, match=r"the zip's directory must have at most 10000 bytes"):
        Bundle.load(path, limits=BundleLimits(directory_bytes=10_000))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"description_bytes": 100}, r"bundle\.json cannot be read: it must have at most 100 bytes"),
        ({"description_depth": 3}, r"bundle\.json must be at most 3 levels deep, got "),
        ({"file_bytes": 2000}, r"\.onnx cannot be read: it must have at most 2000 bytes"),
        ({"bundle_bytes": 2000}, r"all files must have at most 2000 bytes"),
        ({"onnx_fields": 5}, r"\.onnx must have at most 5 protobuf fields"),
    ],
)
def test_limits_can_be_set(folder, limits, message):
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder, limits=BundleLimits(**limits))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with FIFOs")
@pytest.mark.parametrize("name", ["bundle.json", "pose.fp32.onnx"])
def test_files_that_are_not_regular_are_refused(folder, tmp_path, name):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    if name == "bundle.json":
        with pytest.raises(BundleError, match=r"holds no bundle\.json"):
            Bundle.load(folder)
    else:
        with pytest.raises(BundleError, match=r"pose\.fp32\.onnx cannot be read: it must be a regular file"):
            Bundle.load(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(BundleError, match=re.escape(name)):
        Bundle.load(folder)
    (folder / name).rmdir()
    for target in ("/dev/zero", tmp_path / "elsewhere"):
        (tmp_path / "elsewhere").write_bytes(content)
        (folder / name).symlink_to(target)
        with pytest.raises(BundleError, match=r"must be a regular file, got a link|holds no bundle\.json"):
            Bundle.load(folder)
        (folder / name).unlink()


def test_values_that_json_lacks_are_refused(folder):
    for field in ({"extra": {"padding": np.float32(1.25)}}, {"extra": {"AP": float("nan")}}):
        with pytest.raises(BundleError, match=r"bundle\.json: "):
            bundles.rewrite(folder, **field)
    assert Bundle.load(folder).description["extra"] == {"AP": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ('{"name": NaN}', "NaN is not a JSON number"),
        ('{"name": "a", "name": "b"}', "field 'name' occurs twice"),
        ("[" * 100_000, "at most 32 levels"),
        ('{"name": ' + "9" * 5000 + "}", "digits"),
        ("[]", "the file must be an object, got an array of 0 entries"),
        ("7", "the file must be an object, got 7"),
        ("\xff", "utf-8"),
    ],
)
def test_invalid_descriptions_are_refused(folder, text, message):
    (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"bundle\.json") as caught:
        Bundle.load(folder)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_limits_of_the_native_decoder_are_known_beforehand(folder):
    maps = np.ones((1, 1, 8, 8), np.float32)
    lowest, highest = (SCHEMA["$defs"]["sigma"][bound] for bound in ("minimum", "maximum"))
    ops.decode(maps, refine="dark", blur_sigma=lowest)
    ops.decode(maps, refine="dark", blur_sigma=highest)
    with pytest.raises(ValueError, match="blur_sigma"):
        ops.decode(maps, refine="dark", blur_sigma=float(np.nextafter(np.float32(lowest), np.float32(0))))
    with pytest.raises(ValueError, match="blur_sigma"):
        ops.decode(maps, refine="dark", blur_sigma=float(np.nextafter(np.float32(highest), np.float32(100))))
    for wrong in (64.01, 1e-30, 0):
        with pytest.raises(
            BundleError, match=r"networks\.pose\.decoder\.blur_sigma must be a finite number of at"
        ):
            bundles.rewrite(folder, decoder={"refine": "dark", "blur_sigma": wrong})
    names = tuple(f"k{i}" for i in range(513))
    many = oaks.Skeleton(name="many", keypoints=names, sigmas=(0.1,) * 513)
    with pytest.raises(BundleError, match=r"bundle\.json: skeleton\.keypoints must have 1 to 512 entries"):
        bundles.rewrite(folder, skeleton=many)


def test_a_newer_format_is_refused_with_advice(folder):
    change(folder, "in a form not known yet", "skeleton")
    change(folder, bundle.FORMAT + 1, "format")
    with pytest.raises(BundleError, match=r"bundle\.json: format 2 is newer than 1.*upgrade"):
        Bundle.load(folder)


POSE = ("networks", "pose")
UNFIT = {
    "format": (("format",), "one", "format must be an integer"),
    "format true": (("format",), True, "format must be an integer"),
    "no name": (("name",), ..., r"the file must have the fields \['name'\]"),
    "skeleton": (("skeleton", "sigmas"), ..., r"skeleton must have the fields \['sigmas'\]"),
    "an unknown field": (("alignement",), "hrnet", "alignement is an unknown field; known are"),
    "size off the stride": ((*POSE, "input", "size"), [50, 64], r"input\.size must be a multiple of the stride 4"),
    "size of nothing": ((*POSE, "input", "size"), [0, 64], r"input\.size\[0\] must be an integer of at least 1"),
    "size of text": ((*POSE, "input", "size"), ["48", "64"], r"size\[0\] must be an integer .*, got '48'"),
    "size of booleans": ((*POSE, "input", "size"), [True, 64], r"size\[0\] must be an integer .*, got True"),
    "size of floats": ((*POSE, "input", "size"), [48.0, 64], r"size\[0\] must be an integer .*, got 48.0"),
    "a huge size": ((*POSE, "input", "size"), [10**400, 64], r"size\[0\] must be .*, got an integer of 1329 bits"),
    "mean": ((*POSE, "input", "mean"), [0, 0], r"input\.mean must have 3 entries, got 2"),
    "mean of text": ((*POSE, "input", "mean"), [0, "0", 0], r"input\.mean\[1\] must be a finite number"),
    "std": ((*POSE, "input", "std"), [1, 0, 1], r"input\.std\[1\] must be a finite number of at least 1e-06"),
    "input": ((*POSE, "input", "mean"), ..., r"networks\.pose\.input must have the fields \['mean'\]"),
    "color": ((*POSE, "input", "color"), "grb", r"input\.color must be one of \['rgb', 'bgr'\], got 'grb'"),
    "alignment": ((*POSE, "decoder", "alignment"), "center", r"decoder\.alignment must be one of"),
    "refine": ((*POSE, "decoder", "refine"), "guess", r"decoder\.refine must be one of"),
    "blur without dark": ((*POSE, "decoder", "blur_sigma"), 2.0, r"come with refine 'dark', got "),
    "split of heatmaps": ((*POSE, "decoder", "split"), 2.0, r"split must be left out with kind 'heatmaps', got 2\.0"),
    "padding": ((*POSE, "input", "padding"), 0, r"input\.padding must be a finite number of at least 0.1"),
    "half a stride": ((*POSE, "stride"), 1.5, r"networks\.pose\.stride must be an integer"),
    "no stride": ((*POSE, "stride"), ..., r"networks\.pose\.stride must be given with kind 'heatmaps', got None"),
    "simcc": ((*POSE, "kind"), "simcc", r"networks\.pose\.stride must be left out with kind 'simcc', got 4"),
    "calibration": (("calibration",), {"visibility": {"scale": [1.0, 2.0]}},
                    r"calibration\.visibility\.scale must be a number or 3 numbers, got 2"),
    "calibration of text": (("calibration",), {"visibility": {"scale": "1"}}, r"calibration\.visibility\.scale"),
    "a typing error in calibration": (("calibration",), {"visiblity": {"scale": 1.0}},
                                      r"calibration\.visiblity is an unknown field"),
    "a power below 0": (("box_score_power",), -0.01, r"box_score_power must be .* of at least 0 and of at most 1"),
    "a power above 1": (("box_score_power",), 1.01, r"box_score_power must be .* of at least 0 and of at most 1"),
    "a power of text": (("box_score_power",), "1", r"box_score_power must be a finite number"),
    "no license": (("license",), "", "license must be text"),
    "no files": (("files",), {}, "files must have 1 to 64 entries"),
    "a path": (("files", "../pose.onnx"), {"sha256": "0" * 64, "bytes": 1}, r"files\.\.\./pose\.onnx must be text"),
    "a hidden file": (("files", ".a"), {"sha256": "0" * 64, "bytes": 1}, r"must be text that matches"),
    "bundle.json itself": (("card",), "bundle.json", r"files must list every file .* got none called 'bundle\.json'"),
    "a line break": (("files", "a\n"), {"sha256": "0" * 64, "bytes": 1}, r"must be text that matches"),
    "an unused file": (("files", "a.onnx"), {"sha256": "0" * 64, "bytes": 1}, r"files must be those .* got 'a\.onnx'"),
    "a file not listed": ((*POSE, "files", "int8"), "a.onnx", r"files must list every file .* got none called 'a\.onnx'"),
    "a role": (("networks", "arm"), {"files": {}}, r"networks\.arm is an unknown field"),
    "a precision": ((*POSE, "files", "fp8"), "pose.fp32.onnx", r"files\.fp8 is an unknown field"),
    "a checksum": (("files", "ks.fp32.onnx", "sha256"), "0", r"files\.ks\.fp32\.onnx\.sha256 must be text"),
    "no size": (("files", "ks.fp32.onnx", "bytes"), ..., r"must have the fields \['bytes'\]"),
    "a batch": ((*POSE, "batch"), 8, r"networks\.pose\.batch must be an integer .* of at most 1, got 8"),
    "ks without scorer": (("scorer",), ..., r"networks\.ks must come with a pose network and a scorer, got no scorer"),
    "ks alone": (POSE, ..., r"networks\.ks must come with a pose network and a scorer, got no networks\.pose"),
    "pose without skeleton": (("skeleton",), ..., r"skeleton must be given with a pose network or a scorer, got none"),
    "forest without files": (("scorer", "kind"), "forest", r"scorer\.files must be given with kind 'forest'"),
    "a pair of one": (("skeleton", "pairs"), [[0]], r"skeleton\.pairs\[0\] must have 2 entries"),
    "a pair beyond": (("skeleton", "pairs"), [[0, 7]], r"pairs must hold two different indices"),
}  # fmt: skip
BETWEEN_FIELDS = {
    "size off the stride", "size of floats", "blur without dark", "split of heatmaps", "no stride", "simcc",
    "calibration", "bundle.json itself", "an unused file", "a file not listed", "ks without scorer", "ks alone",
    "pose without skeleton", "forest without files", "a pair beyond", "a line break",
}  # fmt: skip
"""What JSON Schema cannot say, or takes otherwise: there 48.0 is an integer, and `$` matches before a line break."""


@pytest.mark.parametrize("case", UNFIT)
def test_a_description_that_does_not_fit_is_refused(folder, case):
    place, value, message = UNFIT[case]
    content = change(folder, value, *place)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(folder)
    assert "bundle.json" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert VALID.is_valid(content) == (case in BETWEEN_FIELDS)


def places(content, above=()):
    """Every key and index within, the first entry of a list standing for the others."""
    for key in content if isinstance(content, dict) else range(min(1, len(content))):
        yield (*above, key)
        if isinstance(content[key], dict | list):
            yield from places(content[key], (*above, key))


def test_every_description_that_loads_fits_the_schema(tmp_path):
    """Each place of the documented example is spoilt in turn; what the schema refuses, loading refuses too."""
    load_description(tmp_path / "full", content := example())
    refused = 0
    for place in places(content):
        for value in (None, True, 0, -1, 1.5, "no", [], {}):
            changed = copy.deepcopy(content)
            within = changed
            for key in place[:-1]:
                within = within[key]
            within[place[-1]] = value
            (tmp_path / "full" / "bundle.json").write_text(json.dumps(changed), encoding="utf-8")
            if not VALID.is_valid(changed):
                refused += 1
                with pytest.raises(BundleError, match=r"bundle\.json"):
                    Bundle.load(tmp_path / "full")
            else:
                with contextlib.suppress(BundleError):
                    Bundle.load(tmp_path / "full")
    assert refused > 400


def test_score_oaks_without_a_scorer_is_refused(tmp_path):
    assert bundles.write(tmp_path / "both", score="oaks").score == "oaks"
    assert bundles.write(tmp_path / "told", ks=False, score="conventional").score == "conventional"
    with pytest.raises(BundleError, match=r"bundle\.json: score must be 'conventional' in a bundle without"):
        bundles.write(tmp_path / "pose alone", ks=False, score="oaks")


def test_write_leaves_the_old_description_when_the_new_one_does_not_fit(folder):
    before = (folder / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="alignment"):
        bundles.rewrite(folder, decoder={"alignment": "center"})
    with pytest.raises(BundleError, match=r"pose\.int8\.onnx"):
        bundles.rewrite(folder, ["pose.fp32.onnx", "pose.int8.onnx"])
    assert (folder / "bundle.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 5


def test_network_is_chosen_by_precision(folder):
    loaded = Bundle.load(folder)
    assert loaded.network("pose", "fp16").file == "pose.fp16.onnx"
    assert loaded.network("ks").file == "ks.fp32.onnx"
    assert loaded.network("pose", "bf16").file == "pose.fp32.onnx"
    assert loaded.network("pose", "bf16").precision == "bf16"
    with pytest.raises(
        ValueError, match=r"precision must be one that .*\['fp32', 'fp16'\], got 'int8'.*oaks export"
    ):
        loaded.network("pose", "int8")
    assert loaded.holds("ks", "fp16")
    assert not loaded.holds("ks", "int8")


def test_an_fp16_file_serves_fp32(folder):
    made = bundles.rewrite(folder, ["pose.fp16.onnx", "ks.fp16.onnx"])
    assert made.precisions("pose") == ["fp32", "fp16"]
    wide, half = made.network("pose", "fp32"), made.network("pose", "fp16")
    assert wide.file == half.file == "pose.fp16.onnx"
    assert {t.data_type for t in onnx.load_from_string(wide.read()).graph.initializer} == {1}
    assert {t.data_type for t in onnx.load_from_string(half.read()).graph.initializer} == {10}
    assert made.network("pose", "bf16").read() == wide.read()


def test_weights_are_a_safetensors_file_or_an_onnx_file_with_an_architecture(folder):
    with pytest.raises(ValueError, match="must have the pose network's weights"):
        Bundle.load(folder).weights()
    (folder / "pose.safetensors").write_bytes(b"a")
    made = bundles.rewrite(folder)
    assert [(n.role, n.file, n.stored) for n in made.weights("fp16")] == [
        ("pose", "pose.safetensors", "torch")
    ]
    change(folder, {"name": "ks_net"}, "networks", "ks", "architecture")
    change(folder, {"name": "oa_hpe"}, "networks", "pose", "architecture")
    found = [(n.role, n.file, n.stored) for n in Bundle.load(folder).weights()]
    assert found == [("pose", "pose.safetensors", "torch"), ("ks", "ks.fp32.onnx", "fp32")]
    assert Bundle.load(folder).architecture("ks") == {"name": "ks_net"}


def test_calibration_may_be_one_number_or_one_per_keypoint(tmp_path):
    calibration = {"visibility": {"scale": [1, 2, 3], "bias": 0.5}, "similarity": {"bias": -1}}
    loaded = bundles.write(tmp_path / "tiny", calibration=calibration)
    np.testing.assert_array_equal(loaded.visibility.scale, [1, 2, 3])
    assert (loaded.visibility.bias, loaded.similarity.scale, loaded.similarity.bias) == (0.5, 1, -1)


@pytest.mark.parametrize("frames", ["bgr", "rgb"])
def test_bgr_networks_get_bgr_crops(tmp_path, frames):
    """The hand-made network's keypoint 0 is the mean of its first channel: blue, if it takes BGR."""
    made = bundles.write(
        tmp_path / "tiny", input={"color": "bgr", "mean": [10, 0, 0], "std": [100, 255, 255]}
    )
    image = np.zeros((bundles.SIZE[1], bundles.SIZE[0], 3), np.uint8)
    image[:, :, frames.index("b")] = 210
    with oaks.Engine(made, "onnxruntime", flip=False, color=frames) as engine:
        heat = engine.infer([image], boxes="whole").heat[0]
    np.testing.assert_allclose(heat, [2, 0, 0], atol=2e-3)
