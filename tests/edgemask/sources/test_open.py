"""Which source a URI stands for."""

from __future__ import annotations

import sys

import pytest
from synthetic import draw_scene

from edgemask.errors import (
    CameraMissing,
    InputError,
    RuntimeUnavailable,
    SourceError,
)
from edgemask.sources import VIDEO_SUFFIXES, expand, open_source, shown
from edgemask.sources.files import ImageFiles


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


def test_images_folders_and_patterns(tmp_path):
    for n in range(2):
        draw_scene(seed=n).save(tmp_path / f"{n}.png")
    assert isinstance(open_source(tmp_path / "0.png"), ImageFiles)
    assert open_source(str(tmp_path)).length == 2
    assert open_source(str(tmp_path / "*.png")).length == 2


def test_file_whose_name_has_a_colon(tmp_path, monkeypatch):
    draw_scene().save(tmp_path / "cams:front.png")
    monkeypatch.chdir(tmp_path)
    assert open_source("cams:front.png").length == 1


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("camra:0", ["did you mean camera:?", "synthetic:"]),
        ("rtps://me:hunter2@host/live", ["rtps://me:***@host/live", "did you mean rtsps:?"]),
        ("rtsp://me:hun#ter2@host/live", ["rtsp://me:***@host/live", "# as %23"]),
        ("rtsp://me:hun/ter2@host/live", ["rtsp://me:***@host/live", "/ as %2F"]),
        ("http://me:hun?ter2@host/live", ["http://me:***@host/live", "? as %3F"]),
        ("rtsp:/me:hunter2@host/live", ["rtsp:/me:***@host/live", "scheme://host/path"]),
        ("http://[::1/live", ["http://[::1/live is not an address"]),
        ("http://host:99999/live", ["is not an address"]),
        ("ftp://host/video.mp4", ["ftp://host/video.mp4 is not a source", "http://"]),
        ("synthetic:people=3", ["after a ?"]),
        ("synthetic:?peoples=3", ["did you mean people?"]),
        ("synthetic:?people=51", ["from 0 to 50"]),
        ("v4l2:video0", ["give its device, /dev/video0"]),
        ("/dev/video0?sise=1", ["v4l2:/dev/video0", "did you mean size?"]),
        ("rtsp://host/live#transport=quic", ["tcp or udp"]),
    ],
)
def test_bad_uris(uri, words):
    with pytest.raises(InputError) as caught:
        open_source(uri)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["a\0*", "/dev/video\0", "v4l2:/dev/\0"])
def test_no_name_has_a_nul_character(uri: str) -> None:
    with pytest.raises(InputError, match="leave out the NUL character"):
        open_source(uri)


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000])
def test_digits_that_are_no_number_of_a_camera(number: str) -> None:
    with pytest.raises(InputError, match="is not a camera: give its number"):
        open_source(f"camera:{number}")


def test_a_live_scene_never_ends() -> None:
    with open_source("synthetic:?live=1&size=64x48") as source:
        assert source.length is None


def test_files_take_no_options(tmp_path):
    path = draw_scene().save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"has no option 'fps': it takes none"):
        open_source(path, fps=3)


@pytest.mark.parametrize("uri", ["", "nowhere.png", "nowhere.mp4", "no*where", "C:\\clip.mp4"])
def test_nothing_there(uri):
    with pytest.raises(SourceError):
        open_source(uri)


def test_no_such_device(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(CameraMissing, match="there is no /dev/video977"):
        open_source("/dev/video977?size=640x480&format=mjpeg")


@pytest.mark.usefixtures("without_av")
@pytest.mark.parametrize("uri", ["/dev/video977", "rtsp://me:hunter2@host/live", "clip.mp4"])
def test_without_pyav(tmp_path, monkeypatch, uri):
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'edgemask\[video\]'") as caught:
        open_source(uri)
    assert "hunter2" not in str(caught.value)


def test_several_videos_are_not_one_source(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match="2 files with videos"):
        open_source(str(tmp_path / "*.mp4"))


def test_expand(tmp_path):
    image = draw_scene().save(tmp_path / "a.png")
    for suffix in (".mp4", ".MOV"):
        (tmp_path / f"clip{suffix}").write_bytes(b"")
    assert expand(str(image)) == ([str(image)], [])
    assert expand(str(tmp_path)) == ([str(image)], [])  # a folder stands for its images
    assert expand(str(tmp_path / "clip.mp4")) == ([], [str(tmp_path / "clip.mp4")])
    images, videos = expand(str(tmp_path / "*"))
    assert images == [str(image)]
    assert sorted(videos) == [str(tmp_path / "clip.MOV"), str(tmp_path / "clip.mp4")]
    for uri in ("-", "camera:1?fps=3", "/dev/video0", "rtsp://host/live", "synthetic:"):
        assert expand(uri) == ([], [uri])
    with pytest.raises(SourceError):
        expand(str(tmp_path / "none.png"))


def test_shown():
    assert shown("rtsp://me:hunter2@host/live") == "rtsp://me:***@host/live"
    assert shown("camera:0?size=640x480") == "camera:0?size=640x480"


def test_suffixes_of_videos_are_none_of_images():
    from edgemask.images import SUFFIXES

    assert not VIDEO_SUFFIXES & SUFFIXES
