"""Drawn people that walk about, with known masks: a source that needs no camera."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgemask.errors import SourceTimeout
from edgemask.sources.base import Frame, Pixels, Source

__all__ = ["Synthetic", "Truth"]

PERSON = 1  # COCO's category

_SKINS = ((236, 188, 160), (198, 134, 98), (120, 78, 54), (255, 219, 188))


@dataclass(frozen=True, eq=False)
class Truth:
    """What is in a frame, for the N people of whom anything can be seen.

    Attributes
    ----------
    masks : ndarray of bool, shape (N, H, W)
        The visible part of each.
    boxes : ndarray of float32, shape (N, 4)
        x0 y0 x1 y1 of each mask, in pixels, half-open.
    track_ids : ndarray of int32, shape (N,)
        The same person has the same number in every frame.
    class_ids : ndarray of int32, shape (N,)
        COCO's category of persons, 1.
    """

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    track_ids: NDArray[np.int32]
    class_ids: NDArray[np.int32]


@dataclass(frozen=True)
class _Walker:
    """One person: size and speed in units of the frame's height, phases in turns."""

    height: float
    ground: float
    start: float
    speed: float
    stride: float
    phase: float
    skin: tuple[int, int, int]
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]


class Synthetic(Source):
    """People-like shapes that walk before a textured wall; the same seed gives the same pixels.

    Parameters
    ----------
    people : int
    size : (int, int)
        Width and height of the frames.
    fps : float
        Frames per second of the scene's own clock, which is `Frame.sensor_ns`.
    frames : int, optional
        Number of frames; None never ends.
    seed : int
    live : bool
        False gives every frame as fast as it is asked for. True keeps the time of a camera: frames
        that nobody asks for in time are dropped.
    """

    def __init__(
        self,
        *,
        people: int = 3,
        size: tuple[int, int] = (640, 480),
        fps: float = 15.0,
        frames: int | None = 100,
        seed: int = 0,
        live: bool = False,
    ) -> None:
        super().__init__("synthetic:")
        self.live, self.length = live, frames
        self._size, self._fps, self._frames = size, fps, frames
        random = np.random.default_rng(seed)
        self._wall = _wall(random, *size)
        # Who stands lower in the picture is nearer, taller, and drawn later.
        walkers = [_walker(random, size[0] / size[1]) for _ in range(people)]
        self._walkers = sorted(walkers, key=lambda walker: walker.ground)
        self._last = -1
        self._delivered = 0
        self._started: float | None = None
        self._wake = threading.Event()

    @property
    def dropped(self) -> int:
        return self._last + 1 - self._delivered

    def read(self, timeout: float = 5.0) -> Frame | None:
        index = self._last + 1
        if self.live:
            now = time.monotonic()
            self._started = now if self._started is None else self._started
            index = max(index, int((now - self._started) * self._fps))
            wait = max(0.0, self._started + index / self._fps - now)
            if not self._wake.wait(min(wait, timeout)) and wait > timeout:
                raise SourceTimeout(f"{self.name} gave no frame for {timeout:g} s: raise its fps")
        if self.closed or (self._frames is not None and index >= self._frames):
            return None
        self._last = index
        self._delivered += 1
        rgb, _ = self._draw(index)
        sensor_ns = int(index / self._fps * 1e9)
        return Frame(rgb, index, sensor_ns, time.time_ns(), f"synthetic-{index:06d}")

    def truth(self, index: int) -> Truth:
        """Return what is in the frame of that index; any frame, in any order."""
        _, owner = self._draw(index)
        numbers = [n for n in range(len(self._walkers)) if (owner == n + 1).any()]
        masks = np.array([owner == n + 1 for n in numbers], bool).reshape(-1, *owner.shape)
        boxes = np.zeros((len(numbers), 4), np.float32)
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return Truth(masks, boxes, np.array(numbers, np.int32), np.full(len(numbers), PERSON, "i4"))

    def _draw(self, index: int) -> tuple[Pixels, NDArray[np.uint8]]:
        """Return the frame, and for each of its pixels 0 (wall) or the person's number + 1."""
        picture = Image.fromarray(self._wall)
        owner = Image.new("L", self._size, 0)
        on_picture, on_owner = ImageDraw.Draw(picture), ImageDraw.Draw(owner)
        for number, walker in enumerate(self._walkers, 1):
            for colour, points in _figure(walker, index / self._fps, *self._size):
                on_picture.polygon(points, fill=colour)
                on_owner.polygon(points, fill=number)
        return np.array(picture), np.array(owner)

    def _release(self) -> None:
        self._wake.set()


def _wall(random: np.random.Generator, width: int, height: int) -> Pixels:
    """Return a cloudy background with a darker floor and some grain."""
    cells = random.integers(90, 170, (5, 7, 1)) + random.integers(-14, 15, (5, 7, 3))
    wall = Image.fromarray(cells.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    shade = np.where(np.arange(height) > height * 0.55, -35, 0)[:, None, None]
    grain = random.integers(-6, 7, (height, width, 1))
    lit = np.asarray(wall).astype(np.int16) + shade + grain
    pixels: Pixels = np.clip(lit, 0, 255).astype(np.uint8)
    return pixels


def _walker(random: np.random.Generator, aspect: float) -> _Walker:
    ground = float(random.uniform(0.7, 0.98))
    height = float((ground - 0.25) * random.uniform(0.8, 1.05))
    speed = float(random.uniform(0.06, 0.2) * random.choice([-1, 1]))
    shirt, trousers = random.integers(20, 256, (2, 3)).tolist()
    return _Walker(
        height, ground, float(random.uniform(0, aspect)), speed, height * 0.4,
        float(random.uniform()), _SKINS[int(random.integers(len(_SKINS)))],
        tuple(shirt), tuple(trousers),
    )  # fmt: skip


def _figure(
    walker: _Walker, seconds: float, width: int, height: int
) -> list[tuple[tuple[int, int, int], list[tuple[float, float]]]]:
    """Return the coloured polygons of a person at a time, those behind first."""
    tall = walker.height
    # Off one side and on again at the other.
    road = width / height + tall
    x = (walker.start + walker.speed * seconds) % road - tall / 2
    swing = math.sin(2 * math.pi * (walker.phase + walker.speed * seconds / walker.stride))
    hip, shoulder, floor = walker.ground - tall * 0.48, walker.ground - tall * 0.82, walker.ground

    def limb(
        colour: tuple[int, int, int], top: float, length: float, turn: float, thick: float
    ) -> tuple[tuple[int, int, int], list[tuple[float, float]]]:
        end_x, end_y = x + math.sin(turn) * length, top + math.cos(turn) * length
        across = thick * math.cos(turn) / 2
        corners = [(x - across, top), (x + across, top)]
        return colour, [*corners, (end_x + across * 0.7, end_y), (end_x - across * 0.7, end_y)]

    def oval(
        colour: tuple[int, int, int], centre: float, wide: float, high: float
    ) -> tuple[tuple[int, int, int], list[tuple[float, float]]]:
        turns = [2 * math.pi * n / 24 for n in range(24)]
        ring = [(x + wide * math.cos(t) / 2, centre + high * math.sin(t) / 2) for t in turns]
        return colour, ring

    leg, arm = floor - hip, tall * 0.38
    darker = tuple(value * 3 // 4 for value in walker.trousers)
    parts = [
        limb(walker.skin, shoulder + tall * 0.03, arm, -swing * 0.6, tall * 0.07),
        limb((darker[0], darker[1], darker[2]), hip, leg, swing * 0.5, tall * 0.13),
        limb(walker.trousers, hip, leg, -swing * 0.5, tall * 0.13),
        oval(walker.shirt, (hip + shoulder) / 2, tall * 0.24, (hip - shoulder) * 1.2),
        limb(walker.skin, shoulder + tall * 0.05, arm, swing * 0.6, tall * 0.07),
        oval(walker.skin, walker.ground - tall * 0.91, tall * 0.13, tall * 0.17),
    ]
    return [(colour, [(u * height, v * height) for u, v in points]) for colour, points in parts]
