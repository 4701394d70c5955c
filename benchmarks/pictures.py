"""The pictures that the benchmarks look at, made from the bundled photograph."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ASTRONAUT = Path(__file__).resolve().parents[1] / "edgemask" / "assets" / "astronaut.jpg"


def photograph() -> Image.Image:
    """Return the bundled photograph: one person, 512x512."""
    with Image.open(ASTRONAUT) as picture:
        return picture.convert("RGB")


def crowd(width: int = 640, height: int = 480, people: int = 5, columns: int = 3) -> Image.Image:
    """Return a picture of several people: the photograph, several times side by side.

    Parameters
    ----------
    width, height : int
        Pixels.
    people : int
        How many; what is left of the last row stays grey.
    columns : int
        How many in a row.
    """
    rows = -(-people // columns)
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    tile = photograph().resize((width // columns, height // rows))
    for n in range(people):
        picture.paste(tile, (n % columns * tile.width, n // columns * tile.height))
    return picture
