"""Size, arithmetic and partitions of the stages of a pack."""

from __future__ import annotations

from edgemask.modelpack import ModelPack

from ..export.flatbuffer import count_macs
from ..export.verify import Verification, check_partitions
from .document import Table

__all__ = ["stage_table"]

DETECTIONS = 5  # regions that the mask head and the keypoint head get


def stage_table(pack: ModelPack, short_side: int) -> tuple[Table, float]:
    """A row per stage, and the multiply-accumulates of one frame.

    Parameters
    ----------
    pack : ModelPack
    short_side : int
        Of an input with sides 4:3.
    """
    stride = pack.input["stride"]
    short = round(short_side / stride) * stride
    wide = round(short_side * 4 / 3 / stride) * stride
    result = Verification()
    check_partitions(pack, result)
    rows, total = [], 0
    for name, content in pack.stages.items():
        if name == "backbone":
            shape, what = (1, short, wide, 3), f"{wide}x{short} pixels"
        else:
            count = pack.rpn["post_nms"] if name == "box_head" else DETECTIONS
            tail = pack.stage_spec(name)["inputs"]["rois"]["shape"][1:]
            shape, what = (count, *tail), f"{count} regions of {tail[0]}x{tail[1]}"
        macs = count_macs(content, shape)
        total += macs
        found = result.partitions[name].values()
        partitions = max(count for count, _ in found)
        outside = sorted({operator for _, others in found for operator in others})
        rows.append([
            name, what, f"{macs / 1e6:.1f} M", f"{len(content) / 1e6:.2f} MB", str(partitions),
            ", ".join(outside) or "none",
        ])  # fmt: skip
    size = sum(len(content) for content in pack.stages.values())
    rows.append(["all", "", f"{total / 1e6:.1f} M", f"{size / 1e6:.2f} MB", "", ""])
    header = ["stage", "input", "MACs", "size", "partitions", "operators outside"]
    return Table(header, rows), float(total)
