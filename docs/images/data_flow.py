"""Draw docs/images/data_flow.svg: the stages of one frame and the arrays between them.

    python docs/images/data_flow.py

All numbers come from the manifest of the bundled pack, for a photograph of 640x480.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgemask.geometry import fit_input
from edgemask.modelpack import load_pack

TARGET = Path(__file__).with_suffix(".svg")

WIDTH, LEFT, SPINE = 920, 40, 400  # SPINE: width of a stage
STAGE, GAP = 58, 44  # heights of a stage and of an arrow
FILLS = {"io": "#e8e8e8", "numpy": "#d3e6f5", "tflite": "#fbe0bd"}
EDGES = {"io": "#777777", "numpy": "#0072b2", "tflite": "#b06000"}
LEGEND = {
    "tflite": "int8 TFLite stage, XNNPACK",
    "numpy": "NumPy",
    "io": "input and output, Pillow",
}


class Drawing:
    """SVG elements, collected."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, kind: str = "note", anchor: str = "start"
    ) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" '
            f'fill="{FILLS[kind]}" stroke="{EDGES[kind]}" stroke-width="1.5"/>'
        )

    def arrow(self, points: list[tuple[float, float]]) -> None:
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path d="M{path}" class="arrow" marker-end="url(#tip)"/>')

    def svg(self, height: float) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
                f'width="{WIDTH}" height="{height:g}" font-family="DejaVu Sans, sans-serif">',
                "<title>Data flow of one frame</title>",
                "<style>.name{font-size:16px;font-weight:bold}.note{font-size:13px;fill:#333}"
                ".shape{font-size:13px;font-family:'DejaVu Sans Mono',monospace}"
                ".arrow{fill:none;stroke:#444;stroke-width:1.6}</style>",
                '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
                'markerHeight="8" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#444"/>'
                "</marker></defs>",
                f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>',
                *self.parts,
                "</svg>",
            ]
        )


def levels_of(manifest: dict, size: tuple[int, int]) -> tuple[dict, list[tuple[int, int]]]:
    """Return the shape of each feature map, and height and width of each RPN level."""

    def cells(stride: int) -> tuple[int, int]:
        return -(-size[0] // stride), -(-size[1] // stride)

    outputs, roi = manifest["stages"]["backbone"]["outputs"], manifest["roi"]
    features = {
        name: (*cells(stride), outputs[name]["shape"][-1])
        for name, stride in zip(roi["features"], roi["strides"], strict=True)
    }
    return features, [cells(stride) for stride in manifest["rpn"]["strides"]]


def pooling(manifest: dict, head: str) -> tuple[str, str, list[str]]:
    """Return name and note of a RoIAlign, and the levels it reads."""
    spec = manifest["roi"][head]
    used, side, ratio = spec["features"], spec["output_size"], spec["sampling_ratio"]
    note = f"level by box size, {ratio}×{ratio} samples a bin, aligned"
    return f"RoIAlign {side}×{side}", note, used


def main() -> int:
    """Write the picture."""
    manifest = dict(load_pack("people").manifest)
    spec, rpn, roi = manifest["input"], manifest["rpn"], manifest["roi"]
    size = fit_input(480, 640, spec["short_side"], spec["stride"], spec["max_aspect"]).network
    features, cells = levels_of(manifest, size)
    channels, side = features["p2"][2], manifest["mask"]["size"]
    anchors = sum(h * w for h, w in cells) * len(rpn["anchor_ratios"])
    classes = len(manifest["classes"])
    outputs = 1 if manifest["mask"]["class_agnostic"] else classes
    boxed, masked = pooling(manifest, "box"), pooling(manifest, "mask")
    pools = [(roi[h]["output_size"], roi[h]["output_size"], channels) for h in ("box", "mask")]
    n = rpn["post_nms"]
    stages = [
        ("io", "load_image", "file, array or PIL.Image; EXIF orientation applied",
         "uint8 (480, 640, 3) RGB"),
        ("io", "resize", f"short side {spec['short_side']}, multiples of {spec['stride']}, "
         "no padding", f"int8 (1, {size[0]}, {size[1]}, 3)"),
        ("tflite", "backbone", "MobileNetV2, light FPN, RPN",
         f"{anchors} anchors: int8 logits and deltas"),
        ("numpy", "proposals", f"top {rpn['pre_nms']} of the raw logits, decode, NMS "
         f"{rpn['nms_threshold']:g}", f"float32 ({n}, 4) boxes, at most"),
        ("numpy", *boxed[:2], f"int8 {(n, *pools[0])}"),
        ("tflite", "box_head", "class logits and box deltas", f"int8 ({n}, {classes}), ({n}, 4)"),
        ("numpy", "detections", "sigmoid, score threshold, decode, NMS per class "
         f"{manifest['detections']['nms_threshold']:g}", "float32 (N, 4) boxes"),
        ("numpy", *masked[:2], f"int8 (N, {', '.join(map(str, pools[1]))})"),
        ("tflite", "mask_head", "nothing is run when N = 0",
         f"int8 (N, {side}, {side}, {outputs})"),
        ("numpy", "paste", "sigmoid by table, rescore, bilinear inside each box only",
         "N bool crops, original pixels"),
        ("io", "Instances", "boxes, scores, class_ids, masks: overlay, JSON, COCO, PNG", ""),
    ]  # fmt: skip

    drawing = Drawing()
    for index, kind in enumerate(LEGEND):
        x = LEFT + 290 * index
        drawing.box(x, 18, 22, 16, kind)
        drawing.text(x + 30, 31, LEGEND[kind])
    tops: dict[str, float] = {}
    y = 58.0
    middle = LEFT + SPINE / 2
    for index, (kind, name, note, after) in enumerate(stages):
        tops.setdefault(name, y)
        drawing.box(LEFT, y, SPINE, STAGE, kind)
        drawing.text(middle, y + 24, name, "name", "middle")
        drawing.text(middle, y + 44, note, "note", "middle")
        if index < len(stages) - 1:
            drawing.arrow([(middle, y + STAGE), (middle, y + STAGE + GAP - 2)])
            drawing.text(middle + 14, y + STAGE + GAP / 2 + 4, after, "shape")
        y += STAGE + GAP

    # The pyramid: each level as wide as its maps, in proportion, and the pooling that reads it.
    panel = LEFT + SPINE + 150
    top = tops["proposals"] - 6
    first = features["p2"]
    drawing.arrow(
        [(LEFT + SPINE, tops["backbone"] + STAGE / 2), (panel + 105, tops["backbone"] + STAGE / 2),
         (panel + 105, top)]
    )  # fmt: skip
    drawing.text(panel + 117, tops["backbone"] + STAGE / 2 + 30, "feature pyramid, int8,")
    drawing.text(panel + 117, tops["backbone"] + STAGE / 2 + 48, "one scale for all levels")
    rows: dict[str, float] = {}
    for name, shape in features.items():
        height = max(22.0, 150 * shape[0] / first[0])
        width = max(34.0, 210 * shape[1] / first[1])
        drawing.box(panel, top, width, height, "tflite")
        rows[name] = top + height / 2
        drawing.text(panel + 10 if width > 160 else panel + width + 10, rows[name] + 5,
                     f"{name} {shape}".replace("(", "(1, ", 1), "shape")  # fmt: skip
        top += height + 18
    for (title, _, used), offset in ((boxed, 60), (masked, 100)):
        target = tops[title] + STAGE / 2
        dashed = ' stroke-dasharray="6 4"' if title == masked[0] else ""
        turn = panel - offset + 20
        for name in used:
            # Lines of the two poolings reach a level at different heights.
            start = rows[name] + (5 if title == masked[0] else -5)
            drawing.parts.append(
                f'<path d="M{panel:g} {start:g} H{turn:g} V{target:g}" class="arrow"{dashed}/>'
            )
        drawing.arrow([(turn, target), (LEFT + SPINE, target)])
    height = y - GAP + 24
    drawing.text(panel - 20, height - 62, "N ≤ max_detections: what is kept is capped")
    drawing.text(panel - 20, height - 44, "before any mask is computed. A dense")
    drawing.text(panel - 20, height - 26, "(N, 480, 640) array exists only on request.")
    TARGET.write_text(drawing.svg(height) + "\n", encoding="utf-8")
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
