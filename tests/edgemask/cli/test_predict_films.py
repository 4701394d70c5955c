"""``edgemask predict``: the overlays of a video file become a film."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import draw_scene

from edgemask import overlay

from .test_predict_streams import files, run

pytestmark = pytest.mark.usefixtures("fake_segmenter")


@pytest.fixture
def clip(tmp_path):
    """The path of a video of 30 drawn scenes, and the module that reads it."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)  # which loses nothing
        stream.width, stream.height, stream.pix_fmt = 65, 48, "bgr0"
        for n in range(30):
            scene = draw_scene(seed=n, height=48, width=65)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path, av


def film_frames(av, path):
    with av.open(str(path)) as container:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def test_overlays_of_a_video_are_a_film(capsys, clip, out):
    path, av = clip
    status, text, err = run(capsys, path, "--out", out)
    assert (status, err) == (0, "")
    assert files(out) == ["clip.overlay.mp4"]
    assert text.startswith(f"{path}: 30 frames, 59 instances -> {out / 'clip.overlay.mp4'} (")
    frames = film_frames(av, out / "clip.overlay.mp4")
    assert len(frames) == 30
    np.testing.assert_allclose([time for time, _ in frames], np.arange(30) / 10, atol=1e-3)
    for n in (0, 29):
        scene = draw_scene(seed=n, height=48, width=65)
        picture = frames[n][1]
        assert picture.shape == (48, 64, 3)  # H.264 has no odd sizes
        # The scene's masks are painted over; what is far from them and its labels stays dark.
        painted = scene.masks.any(axis=0)[:, :64]
        changed = picture[painted].mean(axis=0) - scene.rgb[:, :64][painted].mean(axis=0)
        assert np.abs(changed).max() > 25
        assert np.median(picture[~painted]) < 100 < np.median(picture[painted])


def test_other_formats_of_a_video_are_files_of_each_frame(capsys, clip, tmp_path, out):
    status, text, _ = run(
        capsys, tmp_path / "*.mkv", "--out", out, "--frames", "2", "--format", "json,overlay"
    )
    assert status == 0
    assert files(out) == ["clip.overlay.mp4", "clip/000000.json", "clip/000001.json"]
    assert json.loads((out / "clip" / "000001.json").read_text())["sensor_ns"] == 100_000_000
    assert text.startswith("clip-000000: 2 instances")
    assert len(film_frames(clip[1], out / "clip.overlay.mp4")) == 2


def test_interrupted_film_is_a_shorter_film(capsys, monkeypatch, clip, out):
    draw = overlay.draw
    drawn = []

    def interrupt(*arguments, **options):
        drawn.append(1)
        if len(drawn) == 8:
            raise KeyboardInterrupt
        return draw(*arguments, **options)

    monkeypatch.setattr(overlay, "draw", interrupt)
    status, _, err = run(capsys, clip[0], "--out", out)
    assert (status, err) == (130, "edgemask: error: interrupted\n")
    assert files(out) == ["clip.overlay.mp4"]
    assert len(film_frames(clip[1], out / "clip.overlay.mp4")) == 7


def test_film_that_cannot_be_written(capsys, clip, out):
    (out / "clip.overlay.mp4").mkdir(parents=True)
    status, _, err = run(capsys, clip[0], "--out", out, "--frames", "2")
    assert status == 1
    assert err.startswith(f"edgemask: error: {clip[0]}: {out / 'clip.overlay.mp4'} cannot be wr")
    assert err.count("\n") == 1
    assert files(out) == []
    out.joinpath("clip.overlay.mp4").rmdir()
    out.rmdir()
    out.write_text("a file")
    status, _, err = run(capsys, clip[0], "--out", out, "--frames", "2")
    assert status == 1
    assert "cannot be written" in err
    assert err.count("\n") == 1
