"""Bundles: what is loaded, what is refused, and that the refusal names the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import bundles
import jsonschema
import numpy as np
import pytest

import oaks
from oaks import BundleError, bundle, ops

SCHEMA = json.loads((Path(oaks.__file__).parent / "bundle.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    bundles.write(tmp_path / "tiny", half=True, trained_on=["nothing"], metrics={"AP": 0.5})
    return tmp_path / "tiny"


def change(folder, **fields):
    path = folder / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **fields}), encoding="utf-8")


def test_load_reads_every_field(folder):
    loaded = bundle.Bundle.load(folder)
    assert loaded.name == "tiny"
    assert loaded.skeleton == bundles.RGB
    assert loaded.size == bundles.SIZE
    assert loaded.heatmap_size == (12, 16)
    assert (loaded.mean, loaded.std) == ((0, 0, 0), (255, 255, 255))
    assert (loaded.color, loaded.stride, loaded.padding) == ("bgr", 4, 1.25)
    assert (loaded.alignment, loaded.refine, loaded.blur_sigma) == ("half_pixel", "second_peak", None)
    assert (loaded.license, loaded.score) == ("CC0-1.0", None)
    assert loaded.description["metrics"] == {"AP": 0.5}
    assert loaded.visibility.scale == 1
    assert loaded.visibility.bias == 0


def test_checksums_are_those_of_the_files(folder):
    loaded = bundle.Bundle.load(folder)
    assert set(loaded.files) == {"pose.fp32.onnx", "pose.fp16.onnx", "ks.fp32.onnx", "ks.fp16.onnx"}
    for name, entry in loaded.files.items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert loaded.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("top", ["", "tiny/"])
def test_a_zip_is_read_like_its_folder(folder, tmp_path, top):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, top + file.name)
    packed, plain = bundle.Bundle.load(path), bundle.Bundle.load(folder)
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
    assert bundle.Bundle.load("tiny").path == tmp_path / "tiny"
    monkeypatch.chdir(tmp_path)
    assert bundle.Bundle.load("tiny").path == Path("tiny")


def test_every_shipped_bundle_loads_and_fits_the_schema():
    assert "small" in bundle.shipped()
    for name in bundle.shipped():
        jsonschema.validate(dict(bundle.Bundle.load(name).description), SCHEMA)


def test_the_shipped_bundles_are_small_enough_to_ship():
    """24 MB together, and no file over 15 MB."""
    folders = [bundle.SHIPPED / name for name in bundle.shipped()]
    sizes = {path: path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) > 1e6, "no bundle is there"
    assert max(sizes.values()) <= 15e6, max(sizes, key=sizes.get)
    assert sum(sizes.values()) <= 24e6


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"bundle: .*'nowhere'"):
        bundle.Bundle.load("nowhere")
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        bundle.Bundle.load(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(BundleError, match=r"text\.zip"):
        bundle.Bundle.load(tmp_path / "text.zip")


def test_a_changed_byte_is_found(folder):
    content = bytearray((folder / "ks.fp16.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "ks.fp16.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"ks\.fp16\.onnx is damaged"):
        bundle.Bundle.load(folder)


def test_a_file_that_changes_after_loading_is_found(folder):
    loaded = bundle.Bundle.load(folder)
    (folder / "ks.fp16.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"ks\.fp16\.onnx is damaged or another file"):
        loaded.read("ks.fp16.onnx")


@pytest.mark.parametrize("at", range(30, 1000, 60))
def test_a_damaged_zip_is_a_bundle_error(folder, tmp_path, at):
    path = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", folder))
    content = bytearray(path.read_bytes())
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    path.write_bytes(content)
    with contextlib.suppress(BundleError):  # and nothing else; some bytes decide nothing
        bundle.Bundle.load(path)


def test_what_some_systems_add_to_a_zip_does_not_matter(folder, tmp_path):
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"tiny/{file.name}")
            archive.writestr(f"__MACOSX/tiny/._{file.name}", b"")
    assert bundle.Bundle.load(path).name == "tiny"


def test_what_json_does_not_know_is_refused(folder):
    files = {"pose.fp32.onnx": {"role": "pose", "precision": "fp32"}}
    for field in ({"padding": np.float32(1.25)}, {"metrics": {"AP": float("nan")}}):
        with pytest.raises(BundleError, match=r"bundle\.json: "):
            bundle.write(folder, bundles.described(**field), files)
    assert bundle.Bundle.load(folder).description["metrics"] == {"AP": 0.5}


def test_the_limits_of_the_native_decoder_are_known_beforehand(folder):
    files = {"pose.fp32.onnx": {"role": "pose", "precision": "fp32"}}
    maps = np.ones((1, 1, 8, 8), np.float32)
    ops.decode(maps, refine="dark", blur_sigma=bundle.LARGEST_BLUR_SIGMA)
    above = float(np.nextafter(np.float32(bundle.LARGEST_BLUR_SIGMA), np.float32(100)))
    with pytest.raises(ValueError, match="blur_sigma"):
        ops.decode(maps, refine="dark", blur_sigma=above)
    with pytest.raises(BundleError, match=r"bundle\.json: blur_sigma: at most 64"):
        bundle.write(folder, bundles.described(blur_sigma=above), files)
    names = tuple(f"k{i}" for i in range(513))
    many = oaks.Skeleton(name="many", keypoints=names, sigmas=(0.1,) * 513)
    with pytest.raises(BundleError, match=r"bundle\.json: skeleton: at most 512 keypoints"):
        bundle.write(folder, bundles.described(many), files)
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(content)
    for wrong in ({"blur_sigma": above}, {"skeleton": many.to_dict()}):
        assert not jsonschema.Draft202012Validator(SCHEMA).is_valid({**content, **wrong})


def test_a_truncated_file_is_found(folder):
    content = (folder / "pose.fp32.onnx").read_bytes()
    (folder / "pose.fp32.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=r"pose\.fp32\.onnx is damaged"):
        bundle.Bundle.load(folder)


def test_a_missing_file_is_named(folder):
    (folder / "pose.fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"pose\.fp32\.onnx cannot be read"):
        bundle.Bundle.load(folder)


def test_a_newer_format_is_refused_with_advice(folder):
    change(folder, format=bundle.FORMAT + 1, skeleton="in a form not known yet")
    with pytest.raises(BundleError, match=r"bundle\.json: format 2 is newer than 1.*upgrade"):
        bundle.Bundle.load(folder)


UNFIT = {
    "format": ({"format": "one"}, "format: a whole number"),
    "name": ({"name": ...}, r"fields \['name'\] are missing"),
    "skeleton": ({"skeleton": {"name": "x", "keypoints": ["a"]}}, "sigmas"),
    "size off the stride": (
        {"input": {"size": [50, 64], "mean": [0, 0, 0], "std": [1, 1, 1]}},
        r"input\.size: multiples of the stride",
    ),
    "size of nothing": (
        {"input": {"size": [0, 64], "mean": [0, 0, 0], "std": [1, 1, 1]}},
        r"input\.size: multiples of the stride",
    ),
    "mean": ({"input": {"size": [48, 64], "mean": [0, 0], "std": [1, 1, 1]}}, r"input\.mean: 3 finite"),
    "std": ({"input": {"size": [48, 64], "mean": [0, 0, 0], "std": [1, 0, 1]}}, r"input\.std: positive"),
    "input": ({"input": {"size": [48, 64], "std": [1, 1, 1]}}, "'mean' is missing"),
    "color": (
        {"input": {"size": [48, 64], "mean": [0, 0, 0], "std": [1, 1, 1], "color": "grb"}},
        r"input\.color: one of",
    ),
    "alignment": ({"alignment": "center"}, "alignment: one of"),
    "refine": ({"refine": "guess"}, "refine: one of"),
    "padding": ({"padding": 0}, "padding: a number above 0"),
    "calibration": (
        {"calibration": {"visibility": {"scale": [1.0, 2.0]}}},
        r"calibration\.visibility\.scale: a number or 3 numbers",
    ),
    "a typing error in calibration": (
        {"calibration": {"visiblity": {"scale": 1.0}}},
        r"calibration: visibility and similarity are known, got \['visiblity'\]",
    ),
    "half a stride": ({"stride": 1.5}, "stride: a whole number"),
    "blur_sigma": ({"blur_sigma": 0}, "blur_sigma: a positive number"),
    "no licence": ({"license": ""}, "license: text wanted"),
    "no files": ({"files": {}}, "none has the role 'pose'"),
    "a path": (
        {"files": {"../pose.onnx": {"sha256": "0" * 64, "role": "pose", "precision": "fp32"}}},
        "plain file name",
    ),
    "a role": (
        {"files": {"a.onnx": {"sha256": "0" * 64, "role": "arm", "precision": "fp32"}}},
        r"a\.onnx: role: one of",
    ),
    "a checksum": (
        {"files": {"a.onnx": {"sha256": "0", "role": "pose", "precision": "fp32"}}},
        "64 lower-case hexadecimal",
    ),
    "two of a kind": (
        {
            "files": {
                name: {"sha256": "0" * 64, "role": "pose", "precision": "fp32"} for name in ("a", "b")
            }
        },
        "same role and precision",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_a_description_that_does_not_fit_is_refused(folder, case):
    fields, message = UNFIT[case]
    change(folder, **{name: value for name, value in fields.items() if value is not ...})
    if ... in fields.values():
        content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        content = {name: value for name, value in content.items() if fields.get(name) is not ...}
        (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=message) as caught:
        bundle.Bundle.load(folder)
    assert "bundle.json" in str(caught.value)


def test_what_loads_fits_the_schema_and_what_does_not_fails_it(folder):
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, SCHEMA)
    beyond_schema = {"size off the stride", "no files", "two of a kind", "calibration"}
    for case, (fields, _) in UNFIT.items():
        changed = {name: value for name, value in {**content, **fields}.items() if value is not ...}
        fits = jsonschema.Draft202012Validator(SCHEMA).is_valid(changed)
        assert not fits or case in beyond_schema, case


def places(content, above=()):
    """Every key and index within, the first entry of a list standing for the others."""
    for key in content if isinstance(content, dict) else range(min(1, len(content))):
        yield (*above, key)
        if isinstance(content[key], dict | list):
            yield from places(content[key], (*above, key))


def test_whatever_loads_fits_the_schema(tmp_path):
    """Each place of a full description is spoilt in turn; what the schema refuses, loading refuses too."""
    visibility = {"scale": 1.0, "bias": [0.0] * 3}
    full = {
        "architecture": {"pose": {"name": "oa_hpe"}}, "refine": "dark", "blur_sigma": 2.0, "heatmap_sigma": 1.5,
        "score": "oaks", "trained_on": ["nothing"], "metrics": {"AP": 0.5}, "recipe": {"title": "none"},
        "calibration": {"visibility": visibility, "similarity": {"bias": -1}},
    }  # fmt: skip
    bundles.write(tmp_path / "full", **full)
    content = json.loads((tmp_path / "full" / "bundle.json").read_text(encoding="utf-8"))
    schema, refused = jsonschema.Draft202012Validator(SCHEMA), 0
    for place in places(content):
        for value in (None, "x", "", -1, 0, 1.5, [], {}, ["a"], [None]):
            changed = json.loads(json.dumps(content))
            within = changed
            for key in place[:-1]:
                within = within[key]
            within[place[-1]] = value
            (tmp_path / "full" / "bundle.json").write_text(json.dumps(changed), encoding="utf-8")
            if not schema.is_valid(changed):
                refused += 1
                with pytest.raises(BundleError, match=r"bundle\.json"):
                    bundle.Bundle.load(tmp_path / "full")
    assert refused > 200


def test_a_promise_of_oaks_without_a_ks_network_is_refused(tmp_path):
    assert bundles.write(tmp_path / "both", score="oaks").score == "oaks"
    assert bundles.write(tmp_path / "told", ks=False, score="conventional").score == "conventional"
    with pytest.raises(BundleError, match=r"bundle\.json: score: 'oaks' needs a KS network"):
        bundles.write(tmp_path / "pose alone", ks=False, score="oaks")


def test_text_that_is_no_json_is_named(folder):
    (folder / "bundle.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json is not JSON"):
        bundle.Bundle.load(folder)
    (folder / "bundle.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match="an object wanted, got list"):
        bundle.Bundle.load(folder)


def test_write_leaves_the_old_description_when_the_new_one_does_not_fit(folder):
    before = (folder / "bundle.json").read_bytes()
    files = {"pose.fp32.onnx": {"role": "pose", "precision": "fp32"}}
    with pytest.raises(BundleError, match="alignment"):
        bundle.write(folder, bundles.described(alignment="center"), files)
    with pytest.raises(BundleError, match=r"gone\.onnx"):
        bundle.write(folder, bundles.described(), {"gone.onnx": {"role": "pose", "precision": "fp32"}})
    assert (folder / "bundle.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 5


def test_network_is_chosen_by_precision(folder):
    loaded = bundle.Bundle.load(folder)
    assert loaded.network("pose", "fp16").file == "pose.fp16.onnx"
    assert loaded.network("ks").file == "ks.fp32.onnx"
    assert loaded.network("pose", "bf16").file == "pose.fp32.onnx"
    assert loaded.network("pose", "bf16").precision == "bf16"
    with pytest.raises(ValueError, match=r"precision: 'int8' .*\['fp16', 'fp32'\].*oaks export"):
        loaded.network("pose", "int8")
    assert loaded.holds("ks", "fp16")
    assert not loaded.holds("ks", "int8")


def test_weights_are_told_apart_by_what_they_say(folder, tmp_path):
    def weights(kind):
        header = json.dumps({"__metadata__": {"oaks": json.dumps({"kind": kind})}}).encode()
        return len(header).to_bytes(8, "little") + header

    shutil.copytree(folder, tmp_path / "both")
    for name, kind in (("a.safetensors", "ks"), ("b.safetensors", "pose")):
        (tmp_path / "both" / name).write_bytes(weights(kind))
    files = {name: {"role": "weights", "precision": "fp32"} for name in ("a.safetensors", "b.safetensors")}
    written = bundle.write(tmp_path / "both", bundles.described(), files)
    assert [(n.role, n.file) for n in written.weights()] == [
        ("pose", "b.safetensors"),
        ("ks", "a.safetensors"),
    ]
    with pytest.raises(ValueError, match="needs the pose network's weights"):
        bundle.Bundle.load(folder).weights()
    (tmp_path / "both" / "a.safetensors").write_bytes(b"\x04\0\0\0\0\0\0\0null")
    with pytest.raises(BundleError, match=r"a\.safetensors: no safetensors file"):
        bundle.write(tmp_path / "both", bundles.described(), files).weights()


def test_calibration_may_be_one_number_or_one_per_keypoint(tmp_path):
    calibration = {"visibility": {"scale": [1, 2, 3], "bias": 0.5}, "similarity": {"bias": -1}}
    loaded = bundles.write(tmp_path / "tiny", calibration=calibration)
    np.testing.assert_array_equal(loaded.visibility.scale, [1, 2, 3])
    assert (loaded.visibility.bias, loaded.similarity.scale, loaded.similarity.bias) == (0.5, 1, -1)
