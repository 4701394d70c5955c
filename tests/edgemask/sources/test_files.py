"""Image files and standard input as sources."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import draw_scene

from edgemask.errors import SourceError
from edgemask.sources import open_source
from edgemask.sources.files import ImageFiles, StandardInput
from edgemask.sources.jpegs import split_jpegs


def jpeg(value: int, **options) -> bytes:
    stream = io.BytesIO()
    random = np.random.default_rng(value)
    noise = random.integers(0, 20, (24, 32, 3)) + value
    Image.fromarray(noise.astype(np.uint8)).save(stream, "JPEG", **options)
    return stream.getvalue()


class Pipe(io.RawIOBase):
    """A stream that gives its bytes in small pieces, like a pipe."""

    def __init__(self, content: bytes, piece: int) -> None:
        self.content, self.piece = io.BytesIO(content), piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        piece = self.content.read(min(len(buffer), self.piece))
        buffer[: len(piece)] = piece
        return len(piece)


def test_every_file_of_a_folder(tmp_path):
    scenes = [draw_scene(seed=n) for n in range(3)]
    for n, scene in enumerate(scenes):
        scene.save(tmp_path / f"{n}.png")
    with open_source(tmp_path) as source:
        assert (source.live, source.length, source.dropped) == (False, 3, 0)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.path for frame in frames] == [tmp_path / f"{n}.png" for n in range(3)]
    for frame, scene in zip(frames, scenes, strict=True):
        np.testing.assert_array_equal(frame.rgb, scene.rgb)
        assert frame.name == str(frame.path)
        assert frame.sensor_ns is None
        assert frame.wall_ns > 1_600_000_000 * 10**9


def test_a_broken_file_does_not_end_the_source(tmp_path):
    paths = [str(draw_scene(seed=n).save(tmp_path / f"{n}.png")) for n in range(3)]
    Path(paths[1]).write_text("text")
    source = ImageFiles("three", paths)
    assert source.read().index == 0
    with pytest.raises(SourceError, match=r"1\.png"):
        source.read()
    assert source.read().index == 2
    assert source.read() is None


def test_nothing_after_close(tmp_path):
    source = ImageFiles("one", [str(draw_scene().save(tmp_path / "0.png"))])
    source.close()
    source.close()
    assert source.read() is None


# ---- standard input


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_one_image_of_any_kind(kind):
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), (200, 0, 0)).save(stream, kind)
    stream.seek(0)
    source = StandardInput(stream)
    frame = source.read()
    assert (frame.name, frame.index, frame.rgb.shape) == ("stdin", 0, (4, 6, 3))
    assert source.read() is None


@pytest.mark.parametrize("piece", [1, 7, 100_000])
@pytest.mark.parametrize("between", [b"", b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"])
def test_jpegs_one_after_the_other(piece, between):
    images = [jpeg(n * 40, progressive=n == 1, quality=30 + 30 * n) for n in range(3)]
    pipe = Pipe(images[0] + between + images[1] + between + images[2], piece)
    source = StandardInput(io.BufferedReader(pipe))
    frames = list(source)
    assert [frame.name for frame in frames] == [f"stdin-{n:06d}" for n in range(3)]
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame.rgb, np.asarray(Image.open(io.BytesIO(image))))


def test_thumbnail_is_not_taken_for_the_end():
    exif = Image.Exif()
    exif[0x010E] = "description"
    thumbnail = b"Exif\0\0" + jpeg(10)
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    image = jpeg(80)
    image = image[:2] + segment + image[2:]
    assert list(split_jpegs(io.BytesIO(image + image))) == [image, image]


def test_multi_picture_file_is_one_image():
    body = b"MPF\0" + bytes(20)
    segment = b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    image = jpeg(80)
    both = image[:2] + segment + image[2:] + jpeg(10)
    (frame,) = StandardInput(io.BytesIO(both))
    assert frame.name == "stdin"


def scan_of(content: bytes, before: bytes = b"") -> bytes:
    """The markers of a JPEG image around something."""
    return b"\xff\xd8" + before + b"\xff\xda\x00\x04\x01\x02" + content + b"\xff\xd9"


@pytest.mark.parametrize(
    "image",
    [
        scan_of(b"ab\xff\xd0cd\xff\xd7ef"),
        scan_of(b"ab\xff\xff\xff\x00cd"),
        scan_of(b"ab", before=b"\xff\xff\xff\xe0\x00\x04zz"),
    ],
    ids=["restart", "filled", "filled before a segment"],
)
def test_markers_that_do_not_end_an_image(image: bytes) -> None:
    assert list(split_jpegs(io.BytesIO(image * 3))) == [image] * 3


def test_the_first_image_of_a_stream_does_not_wait_for_the_end():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as sender:
        frames = []
        source = StandardInput(stream)
        work = threading.Thread(target=lambda: frames.append(source.read()), daemon=True)
        work.start()
        sender.write(jpeg(1) + jpeg(2))
        work.join(10)
        assert [frame.index for frame in frames] == [0]


def test_stream_that_stops_within_an_image():
    images = [jpeg(0), jpeg(40)]
    source = StandardInput(io.BytesIO(images[0] + images[1] + images[0][:200]))
    assert [frame.index for frame in source] == [0, 1]


def test_damage_costs_one_image_or_two_but_not_the_stream():
    images = [jpeg(n * 30) for n in range(5)]
    for cut in (3, 30, 200, len(images[1]) - 5):
        found = list(split_jpegs(io.BytesIO(images[0] + images[1][:cut] + b"".join(images[2:]))))
        assert found[0] == images[0]
        assert found[-2:] == images[3:]


def test_one_image_that_stops_is_damaged():
    with pytest.raises(SourceError, match="damaged or incomplete"):
        StandardInput(io.BytesIO(jpeg(0)[:300])).read()


def test_empty_and_no_image():
    with pytest.raises(SourceError, match="0 bytes"):
        StandardInput(io.BytesIO()).read()
    with pytest.raises(SourceError, match="stdin is not an image"):
        StandardInput(io.BytesIO(b"text, not a picture")).read()


def test_nothing_more_of_standard_input_after_close() -> None:
    source = StandardInput(io.BytesIO(jpeg(3)))
    source.close()
    assert source.read() is None


def test_dash_is_standard_input(monkeypatch):
    stream = types.SimpleNamespace(buffer=io.BytesIO(jpeg(3)))
    monkeypatch.setattr(sys, "stdin", stream)
    assert [frame.name for frame in open_source("-")] == ["stdin"]
