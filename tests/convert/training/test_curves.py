from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="the picture needs it: pip install matplotlib")

from edgemask_convert.training.curves import draw_curves, series

ROWS = [
    {"time": 1.0, "step": 50, "class": 0.9, "mask": 1.2, "total": 3.0, "grad_norm": 9.0},
    {"time": 2.0, "step": 100, "class": 0.5, "mask": 0.8, "total": 2.0, "grad_norm": 9.0},
    {"time": 2.5, "step": 100, "dev_mask_AP": 0.1},
    {"time": 3.0, "step": 150, "class": 0.4, "mask": 0.7, "total": 1.5, "grad_norm": 9.0},
]


def test_series() -> None:
    assert series(ROWS, "mask") == ([50, 100, 150], [1.2, 0.8, 0.7])
    assert series(ROWS, "dev_mask_AP") == ([100], [0.1])


def test_the_picture_changes_with_the_figures(tmp_path: Path) -> None:
    other = [{**row, "mask": 0.3} if "mask" in row else row for row in ROWS]
    pictures = []
    for name, rows in (("a", ROWS), ("b", ROWS), ("c", other)):
        draw_curves(rows, tmp_path / f"{name}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")))
    assert pictures[0].shape[0] > 500
    assert (pictures[0] < 128).any()
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS[2:3]])
def test_few_rows(rows: list[dict[str, float]], tmp_path: Path) -> None:
    draw_curves(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
