"""Every kind of image file becomes RGB, or an error that says what is wrong with it."""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps
from synthetic import draw_scene, png_header

import edgemask
from edgemask import images
from edgemask.errors import InputError, SourceError
from edgemask.images import as_rgb, expand_source, load_image


@pytest.fixture
def picture(scene):
    return Image.fromarray(scene.rgb)


def fails(source, *words):
    with pytest.raises(SourceError) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# ---- what works


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_lossless_files(tmp_path, scene, suffix):
    path = tmp_path / f"scene.{suffix}"
    scene.save(path)
    rgb = load_image(path)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable
    np.testing.assert_array_equal(rgb, scene.rgb)
    np.testing.assert_array_equal(load_image(str(path)), scene.rgb)


def test_jpeg(tmp_path):
    flat = Image.new("RGB", (30, 20), (200, 100, 50))
    flat.save(tmp_path / "flat.jpg", quality=95)
    rgb = load_image(tmp_path / "flat.jpg")
    assert rgb.shape == (20, 30, 3)
    assert np.abs(rgb.astype(int) - (200, 100, 50)).max() <= 3


def test_open_files_and_pipes(tmp_path, scene):
    path = scene.save(tmp_path / "scene.png")
    with open(path, "rb") as stream:
        np.testing.assert_array_equal(load_image(stream), scene.rgb)

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.rest = io.BytesIO(path.read_bytes())

        def readable(self):
            return True

        def seekable(self):
            return False

        def readinto(self, buffer):
            return self.rest.readinto(buffer)

    np.testing.assert_array_equal(load_image(io.BufferedReader(Pipe())), scene.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), expected)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_senseless_orientation_is_ignored(tmp_path, scene, picture, value):
    exif = Image.Exif()
    exif[0x0112] = value
    picture.save(tmp_path / "odd.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "odd.png"), scene.rgb)


def test_broken_exif_is_ignored(tmp_path, scene, picture):
    picture.save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = load_image(tmp_path / "odd.png")
    np.testing.assert_array_equal(rgb, scene.rgb)


def test_exif_that_is_no_tiff_is_ignored(tmp_path) -> None:
    Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / "odd.png", exif=b"Exif\0\0garbage!")
    assert (load_image(tmp_path / "odd.png") == 9).all()


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("1", "png"), ("CMYK", "tiff"), ("YCbCr", "jpg")]
)
def test_modes_that_pillow_converts(tmp_path, picture, mode, suffix):
    picture.convert(mode).save(tmp_path / f"p.{suffix}")
    with Image.open(tmp_path / f"p.{suffix}") as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(load_image(tmp_path / f"p.{suffix}"), expected)


def test_palette(tmp_path, picture):
    picture.quantize(64).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as stored:
        assert stored.mode == "P"
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(load_image(tmp_path / "p.png"), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    half = np.zeros((4, 6, 4), np.uint8)
    half[:, 2:4, 3], half[:, 4:, 3] = 128, 255
    Image.fromarray(half).convert(mode).save(tmp_path / "p.png")
    rgb = load_image(tmp_path / "p.png")
    assert rgb[0, :, 1].tolist() == [255, 255, 127, 127, 0, 0]


def test_transparent_palette_and_colour_key(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    indexed.save(tmp_path / "p.png", transparency=0)
    assert load_image(tmp_path / "p.png").tolist() == [[[255, 255, 255], [0, 0, 255]]]
    keyed = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8))
    keyed.save(tmp_path / "k.png", transparency=(9, 9, 9))
    assert load_image(tmp_path / "k.png").tolist() == [[[255, 255, 255], [1, 2, 3]]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey(tmp_path, suffix):
    grey = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"p.{suffix}")
    assert load_image(tmp_path / f"p.{suffix}")[0, :, 2].tolist() == [0, 0, 1, 1, 128, 255]


def test_grey_of_32_bits_saturates() -> None:
    grey = Image.fromarray(np.array([[-5, 0, 257, 65535, 70000]], np.int32))
    assert as_rgb(grey)[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "p.png")
    assert load_image(tmp_path / "p.png").tolist() == [[[1, 2, 3]]]


def test_one_long_row() -> None:
    assert as_rgb(Image.new("RGB", (1_100_000, 1))).shape == (1, 1_100_000, 3)


def test_bands_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_BAND_PIXELS", 300)
    scene = draw_scene(seed=3, height=61, width=37)
    np.testing.assert_array_equal(load_image(scene.save(tmp_path / "p.png")), scene.rgb)


# ---- what is refused


def test_missing(tmp_path):
    fails(tmp_path / "none.jpg", "none.jpg", "No such file", "check the path")


def test_impossible_name():
    fails("a\0b", "check the path")


def test_folder(tmp_path):
    fails(tmp_path, "is a folder")


def test_empty_file(tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"")
    fails(tmp_path / "p.jpg", "p.jpg", "0 bytes")


def test_text_named_like_an_image(tmp_path):
    (tmp_path / "p.jpg").write_text("this is not an image")
    fails(tmp_path / "p.jpg", "is not an image, whatever its name says")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_image_of_which_only_the_beginning_is_there(tmp_path, picture, kind: str) -> None:
    whole = io.BytesIO()
    picture.save(whole, kind)
    (tmp_path / "p.dat").write_bytes(whole.getvalue()[:10])
    fails(tmp_path / "p.dat", "p.dat is damaged or incomplete", "copy or export it again")


def test_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("this is not an image")
    fails(tmp_path / "notes.txt", "is not an image that Pillow reads", "JPEG")


def test_rubbish_from_a_pipe() -> None:
    reader, writer = os.pipe()
    with open(writer, "wb") as stream:
        stream.write(b"no image at all")
    with open(reader, "rb") as stream, pytest.raises(SourceError, match="is not an image"):
        load_image(stream)


def test_a_pipe_without_an_end(monkeypatch) -> None:
    monkeypatch.setattr(images, "_MOST_BYTES", 2 * 10**6)

    class Endless(io.RawIOBase):
        name = "zeros"

        def readable(self):
            return True

        def readinto(self, buffer):
            return len(buffer)

    fails(io.BufferedReader(Endless()), "zeros is more than 2 MB")


def test_a_program_for_ghostscript_is_not_run(tmp_path, picture) -> None:
    picture.save(tmp_path / "scene.eps")
    (tmp_path / "scene.eps").rename(tmp_path / "scene.jpg")
    fails(tmp_path / "scene.jpg", "is not an image, whatever its name says", "%!PS")


def test_heic(tmp_path):
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50)
    fails(tmp_path / "p.heic", "HEIC", "export it as JPEG")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_truncated_at_any_place(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        fails(path, path.name)


def test_floating_point_pixels(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "p.tiff")
    fails(tmp_path / "p.tiff", "floating-point", "8 bits")


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (20_000, 20_000, "400 megapixels"),
        (10_001, 10_000, "10001x10000 pixels"),
        (2**31 - 1, 2**31 - 1, "megapixels"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(tmp_path, width, height, size):
    (tmp_path / "p.png").write_bytes(png_header(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(tmp_path / "p.png", size, "limit of 100 megapixels", "smaller")


def test_limit_itself_is_not_refused(tmp_path):
    (tmp_path / "p.png").write_bytes(png_header(1, 100_000_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(tmp_path / "p.png", "damaged or incomplete")


def test_not_enough_memory(tmp_path, scene, monkeypatch):
    def load(_):
        raise MemoryError

    path = scene.save(tmp_path / "p.bmp")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    fails(path, "memory", "smaller")


# ---- arrays and images in memory


def test_arrays_are_taken_as_they_are(scene):
    assert as_rgb(scene.rgb) is scene.rgb


def test_paths_and_images(tmp_path, scene, picture):
    path = scene.save(tmp_path / "p.png")
    for image in (path, str(path), picture):
        np.testing.assert_array_equal(as_rgb(image), scene.rgb)


def test_an_image_in_memory_keeps_its_orientation(tmp_path, scene, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "p.png", exif=exif)
    with Image.open(tmp_path / "p.png") as opened:
        np.testing.assert_array_equal(as_rgb(opened), scene.rgb)


def test_an_image_in_memory_has_the_limit_too(monkeypatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    with pytest.raises(SourceError, match="above the limit"):
        as_rgb(Image.new("RGB", (11, 1)))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 .*\(4, 5, 3\).*\* 255"),
        (np.zeros((4, 5, 3), np.uint16), "uint16.*// 257"),
        (np.zeros((4, 5, 3), np.int64), "int64.*uint8"),
        (np.zeros((4, 5), np.uint8), r"\(4, 5\).*np.stack"),
        (np.zeros((4, 5, 1), np.uint8), "np.repeat"),
        (np.zeros((4, 5, 4), np.uint8), "alpha"),
        (np.zeros((3, 4, 5), np.uint8), "transpose"),
        (np.zeros((1, 4, 5, 3), np.uint8), "one by one"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 0, 3), np.uint8), "empty"),
        (np.zeros(5, np.uint8), "load_image"),
    ],
)
def test_arrays_that_are_no_images(array, words):
    with pytest.raises(InputError, match=words):
        as_rgb(array)


@pytest.mark.parametrize("image", [None, 3, [[1, 2, 3]], b"bytes"])
def test_other_types(image):
    with pytest.raises(InputError, match=type(image).__name__):
        as_rgb(image)


def test_images_in_memory_that_are_no_images(picture):
    with pytest.raises(InputError, match="not empty"):
        as_rgb(Image.new("RGB", (0, 3)))
    with pytest.raises(SourceError, match="floating-point"):
        as_rgb(picture.convert("F"))


# ---- files, folders and patterns


@pytest.fixture
def folder(tmp_path, scene):
    for name in ("b.png", "a.JPG", ".hidden.png", "sub/c.png"):
        scene.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(paths):
    return [path.rpartition("/")[2] for path in paths]


def test_folder_stands_for_its_images(folder):
    assert names(expand_source(str(folder))) == ["a.JPG", "b.png"]


def test_pattern(folder):
    assert names(expand_source(f"{folder}/*.png")) == ["b.png"]
    assert names(expand_source(f"{folder}/**/*.png")) == ["b.png", "c.png"]


def test_file_is_taken_whatever_its_name(folder):
    odd = folder / "odd[1]*"
    odd.write_bytes(b"x")
    assert expand_source(str(odd)) == [str(odd)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder.png", r"has no images.*\.jpg"),
        ("none.jpg", "does not exist"),
        ("*.webp", "no file matches"),
        ("a\0b", "check the path"),
    ],
)
def test_sources_without_a_file(folder, name, words):
    with pytest.raises(SourceError, match=words):
        expand_source(f"{folder}/{name}")


def test_empty_source():
    with pytest.raises(SourceError, match="does not exist"):
        expand_source("")


def test_load_image_is_exported():
    assert edgemask.load_image is load_image
