"""Makes what libcamera's virtual camera shows: ``make_photograph.py FOLDER``.

The virtual camera hands on the YCbCr values of a JPEG as they are, full range, and says that they
are of limited range (SMPTE 170M) if that was asked for, as picamera2 does. So the values are
squeezed into that range first. Also writes the picture as it should look, and virtual.yaml.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH = Path(__file__).resolve().parents[2] / "edgemask" / "assets" / "astronaut.jpg"
SIZE = (640, 480)

CONFIGURATION = """%YAML 1.1
---
"Virtual0":
  supported_formats:
    - width: {width}
      height: {height}
      frame_rates: [30, 30]
  frames:
    path: "{jpeg}"
  location: "CameraLocationBack"
  model: "virtual"
"""


def main(folder: Path) -> None:
    """Write photograph.png, camera.jpg and virtual.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(PHOTOGRAPH) as image:
        picture = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    picture.save(folder / "photograph.png")
    values = np.asarray(picture.convert("YCbCr")).astype(np.float32)
    values[..., 0] = 16 + values[..., 0] * 219 / 255
    values[..., 1:] = 128 + (values[..., 1:] - 128) * 224 / 255
    squeezed = Image.fromarray(np.rint(values).astype(np.uint8), "YCbCr")
    squeezed.save(folder / "camera.jpg", quality=97, subsampling="4:2:0")
    text = CONFIGURATION.format(width=SIZE[0], height=SIZE[1], jpeg=folder / "camera.jpg")
    (folder / "virtual.yaml").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
