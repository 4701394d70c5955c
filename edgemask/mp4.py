"""Writing MP4 films, through PyAV."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from typing import IO, Any

from edgemask.sources.base import Pixels
from edgemask.sources.video import import_av

__all__ = ["Mp4"]

_TICKS = 90_000  # a second; the clock of MPEG
_USUAL_RATE = Fraction(25)
# Without looking ahead, for which x264 would keep 40 frames in memory.
_H264_OPTIONS = {"preset": "veryfast", "tune": "zerolatency"}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov", "flush_packets": "1"}


class Mp4:
    """An MP4 film of H.264, where PyAV has x264, or else MPEG-4.

    Every method raises what PyAV raises, an OSError or ``av.error.FFmpegError``.

    Parameters
    ----------
    file : str or file object
        Where it goes; a file object must be able to seek.
    height, width : int
        Of all frames. A last odd row or column is cut off, since H.264 has none.
    rate : Fraction, optional
        Frames per second, for those that do not have a time.
    fragmented : bool
        Whether what has been written can be played before the film is complete, and so when the
        program is killed: all but the last half second, or dozen of frames without a `rate`.
    """

    def __init__(
        self,
        file: str | IO[bytes],
        height: int,
        width: int,
        rate: Fraction | None = None,
        *,
        fragmented: bool = False,
    ) -> None:
        self._av = import_av()
        if isinstance(file, str):
            file = os.path.abspath(file)  # before a colon FFmpeg expects a protocol: 12:30.mp4
        self._rate = rate or _USUAL_RATE
        self._size = height - height % 2, width - width % 2
        self._last = -1
        options = _FRAGMENTS if fragmented else {}
        self._container = self._av.open(file, "w", format="mp4", options=options)
        # Wheels of PyAV have x264, some distributions' packages do not.
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._stream: Any = self._container.add_stream(codec, rate=self._rate)
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "yuv420p"
        if fragmented:
            self._stream.codec_context.gop_size = max(1, round(self._rate / 2))
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            self._stream.codec_context.options = _H264_OPTIONS

    def add(self, rgb: Pixels, time_ns: int | None = None) -> None:
        """Add a frame.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
        time_ns : int or None
            Its place in the film.
        """
        height, width = self._size
        frame = self._av.VideoFrame.from_ndarray(rgb[:height, :width].copy(), format="rgb24")
        if time_ns is None:
            ticks = 0 if self._last < 0 else self._last + round(_TICKS / self._rate)
        else:
            ticks = time_ns * _TICKS // 10**9
        self._last = frame.pts = max(ticks, self._last + 1)
        frame.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Complete the film."""
        with contextlib.closing(self._container):
            self._container.mux(self._stream.encode(None))
