"""Images: the same pixels from every kind of input, natural order of files, and limits on size."""

from __future__ import annotations

import io
import logging
import os
import struct
import tracemalloc
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from oaks.images import (
    ImageFolder,
    as_frame,
    check_size,
    find_images,
    images_in,
    natural_key,
    read_image,
    read_size,
    readable_images,
)
from oaks.limits import Limits
from oaks.skipping import SkippedItems

SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 3)


def write(path, pixels=SMOOTH):
    assert cv2.imwrite(str(path), pixels)
    return path


def saved(path, image, **settings):
    image.save(path, **settings)
    return path


def as_array(path):
    with Image.open(path) as image:
        return as_frame("frame", image, "bgr", on_device=False)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_for_every_kind_of_input(tmp_path, suffix, orientation):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    exif = Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH), exif=exif)
    image = read_image(path)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(image[..., ::-1], expected)
    np.testing.assert_array_equal(as_array(path), image)
    assert image.shape[:2] == ((40, 24) if orientation > 4 else (24, 40))
    assert read_size(path) == image.shape[1::-1]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path, suffix):
    values = np.random.default_rng(1).integers(0, 1 << 16, (24, 40)).astype(np.uint16)
    path = write(tmp_path / f"a.{suffix}", values)
    np.testing.assert_array_equal(read_image(path), np.repeat((values >> 8)[..., None], 3, 2))
    np.testing.assert_array_equal(as_array(path), read_image(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "I;16"])
def test_palettes_alpha_and_gray_are_converted_for_every_kind_of_input(tmp_path, mode):
    rgba = Image.fromarray(np.dstack([SMOOTH, np.random.default_rng(2).integers(0, 256, (24, 40), np.uint8)]))
    if mode == "PA":
        image = rgba.convert("RGB").quantize(16)
        image.info["transparency"] = 3
    elif mode == "I;16":
        image = Image.fromarray(SMOOTH[..., 0].astype(np.uint16) * 257)
    else:
        image = rgba.convert(mode)
    path = saved(tmp_path / "a.png", image)
    assert len(np.unique(read_image(path))) > 1
    np.testing.assert_array_equal(as_array(path), read_image(path))
    np.testing.assert_array_equal(
        as_frame("frame", path, "rgb", on_device=False), read_image(path)[..., ::-1]
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_colors_of_a_tiff_do_not_depend_on_its_alpha(tmp_path, orientation):
    alpha = np.random.default_rng(2).integers(0, 256, (24, 40), np.uint8)
    image = Image.fromarray(np.dstack([SMOOTH, alpha]))
    path = saved(tmp_path / "a.tif", image, tiffinfo={274: orientation})
    expected = SMOOTH if orientation == 1 else np.rot90(SMOOTH, -1)
    np.testing.assert_array_equal(read_image(path)[..., ::-1], expected)
    with Image.open(io.BytesIO(path.read_bytes())) as opened:  # Pillow 13 misreads it where it maps the file
        np.testing.assert_array_equal(as_frame("frame", opened, "bgr", on_device=False), read_image(path))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match=rf"frame must have 8 or 16 bits.*mode '{mode}'"):
        as_frame("frame", Image.new(mode, (4, 4)), "bgr", on_device=False)
    path = saved(tmp_path / "a.tif", Image.new(mode, (4, 4)))
    with pytest.raises(ValueError, match=rf"a.tif must have 8 or 16 bits.*mode '{mode}'"):
        read_image(path)


def test_transparent_colors_of_a_gif_are_read(tmp_path):
    """OpenCV replaces them by the background's color."""
    image = Image.new("P", (8, 6), 1)
    image.putpalette([250, 0, 0, 10, 200, 30, 0, 0, 250])
    path = saved(tmp_path / "a.gif", image, transparency=1)
    np.testing.assert_array_equal(read_image(path), np.full((6, 8, 3), (30, 200, 10), np.uint8))
    with Image.open(path) as opened:
        np.testing.assert_array_equal(as_frame("frame", opened, "bgr", on_device=False), read_image(path))


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jp2", "gif", "bmp", "dib", "webp", "tiff", "ppm", "avif"])
def test_every_format_is_found_and_read(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    kinds = {"jfif": "JPEG", "jpe": "JPEG"}
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH), format=kinds.get(suffix))
    assert images_in(tmp_path) == [path]
    assert np.abs(read_image(path)[..., ::-1].astype(int) - SMOOTH).mean() < 12


def test_unread_files_in_a_folder_are_named(tmp_path, caplog):
    write(tmp_path / "a.PNG")
    foreign = [tmp_path / name for name in ("b.heic", "c.HEIC", "d.svg")]
    for path in (*foreign, tmp_path / "notes.txt"):
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="oaks"), SkippedItems() as skipped:
        assert images_in(tmp_path) == [tmp_path / "a.PNG"]
    assert list(skipped.items) == list(map(str, foreign))
    why = "image files of this kind are not read; convert them to JPEG or PNG"
    assert caplog.messages == [
        f"skipped 2 .heic files in {tmp_path}: {why}: {foreign[0]}, {foreign[1]}",
        f"skipped 1 .svg file in {tmp_path}: {why}: {foreign[2]}",
    ]
    (tmp_path / "a.PNG").unlink()
    (tmp_path / "more.png").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"images not found: .* it holds 2 \.heic, 1 \.svg, 1 \.txt, 1 folder$"
    ):
        images_in(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_are_followed_and_those_that_lead_nowhere_are_listed(tmp_path):
    write(tmp_path / "a.png")
    for name, goal in (("b.png", "a.png"), ("gone.png", "nothing.png"), ("loop.png", "loop.png")):
        (tmp_path / name).symlink_to(tmp_path / goal)
    names = ["a.png", "b.png", "gone.png", "loop.png"]
    for source in (tmp_path, str(tmp_path / "*.png")):
        assert [path.name for path in find_images([source])] == names
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), read_image(tmp_path / "a.png"))
    with SkippedItems() as skipped:
        assert len(list(readable_images(images_in(tmp_path)))) == 2
    assert list(skipped.items) == [str(tmp_path / "gone.png"), str(tmp_path / "loop.png")]
    with pytest.raises(FileNotFoundError, match="images not found"):
        find_images([tmp_path / "gone.png"])


def test_files_come_in_natural_order(tmp_path):
    for number in range(1, 13):
        write(tmp_path / f"frame{number}.png")
    expected = [tmp_path / f"frame{number}.png" for number in range(1, 13)]
    assert find_images([tmp_path]) == find_images([str(tmp_path / "*.png")]) == expected
    assert find_images([expected[4], tmp_path]) == [expected[4], *expected[:4], *expected[5:]]
    names = ["x²/1", "2", "a2", "A10", "a10", "b/10", "b/9", "b", "07", "7", "٣", "１０"]
    expected = ["2", "٣", "07", "7", "１０", "a2", "A10", "a10", "b", "b/9", "b/10", "x²/1"]
    assert sorted(names, key=natural_key) == expected
    for nothing in (tmp_path / "gone.jpg", tmp_path / "*.gif"):
        with pytest.raises(FileNotFoundError, match="images not found"):
            find_images([nothing])


def huge_jpeg(width, height):
    """A JPEG of a few hundred bytes that claims to be of any size."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "JPEG")
    data = content.getvalue()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def huge_png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"")]
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("content", [huge_jpeg(65500, 65500), huge_png(1 << 20, 1 << 20)])
def test_huge_pictures_are_refused_before_memory_is_allocated(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"a\.jpg: width times height must be at most .*OAKS_LIMIT_IMAGE_PIXELS"
    ):
        read_image(tmp_path / "a.jpg")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_limits_can_be_changed(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png")
    with pytest.raises(ValueError, match="must be at most 959, got 960"):
        read_image(path, bounds=Limits(image_pixels=959))
    with pytest.raises(ValueError, match="size in bytes must be at most 100"):
        read_image(path, bounds=Limits(image_bytes=100))
    monkeypatch.setenv("OAKS_LIMIT_IMAGE_PIXELS", "959")
    with pytest.raises(ValueError, match="must be at most 959"):
        read_image(path)
    with Image.open(path) as image, pytest.raises(ValueError, match=r"frame\[3\]: width times height"):
        as_frame("frame[3]", image, "bgr", on_device=False)
    monkeypatch.setenv("OAKS_LIMIT_IMAGE_PIXELS", "960")
    assert read_image(path).shape == (24, 40, 3)
    monkeypatch.setenv("OAKS_LIMIT_IMAGE_PIXELS", "many")
    with pytest.raises(ValueError, match="OAKS_LIMIT_IMAGE_PIXELS must be a positive integer"):
        read_image(path)


def test_damage_is_named(tmp_path):
    whole = write(tmp_path / "a.jpg").read_bytes()
    for content, message in (
        (b"", "empty"), (b"no image", "not an image"), (whole[:-9], "the JPEG file ends before"),
        (huge_png(8, 8), "its PNG data cannot be decoded"),
    ):  # fmt: skip
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.jpg: .*{message}"):
            read_image(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="image not found: .*gone"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="path must be a path without NUL"):
        read_image("a\0b")


def test_labels_of_another_size_are_refused_with_both():
    for labeled in ((0, 0), (386, 512), (386, 0)):
        check_size("a.jpg", (386, 512), labeled)
    with pytest.raises(
        ValueError, match=r"a\.jpg: its size must be that of its labels, 512×386, got 386×512; .*orientation"
    ):
        check_size("a.jpg", (386, 512), (512, 386))
    with pytest.raises(ValueError, match="that of its labels, 772×1024, got 386×512$"):
        check_size("a.jpg", (386, 512), (772, 1024))


def test_names_are_found_in_any_form(tmp_path):
    composed, split = (unicodedata.normalize(form, "Füße") for form in ("NFC", "NFD"))
    (tmp_path / split).mkdir()
    path = write(tmp_path / split / f"{composed}.png")
    folder = ImageFolder(tmp_path)
    for above in (composed, split):
        for name in (composed, split):
            for slash in ("/", "\\", "/./"):
                found = folder.path(f"{above}{slash}{name}.png")
                assert found.samefile(path)
    assert folder.path(str(path)).samefile(path)
    assert folder.find("other.png") is None
    with pytest.raises(FileNotFoundError, match=r"image not found: .*other\.png"):
        folder.path("other.png")


@pytest.mark.parametrize("name", [
    "../a.png", "x/../../a.png", "..\\a.png", "/a.png", "C:\\a.png", "C:a.png", "\\\\host\\a.png", "", "a\0",
])  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    write(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="file_name must"):
        ImageFolder(tmp_path / "images").find(name)


def test_a_name_that_is_too_long_finds_no_file(tmp_path):
    assert ImageFolder(tmp_path).find("a" * 5000 + ".jpg") is None
