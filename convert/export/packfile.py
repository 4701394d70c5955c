"""Writing model packs."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from edgemask.manifest import parse_manifest

EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed member times: the same content gives the same file


def write_pack(path: str | Path, manifest: dict[str, Any], stages: dict[str, bytes]) -> None:
    """Write ``model.json`` and the stages to a zip, aside first, then renamed.

    The result is byte-identical for identical content.

    Raises
    ------
    ModelError
        The manifest is not one that edgemask would load; nothing is written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    members = {"model.json": json.dumps(manifest, indent=1, ensure_ascii=False).encode()}
    parse_manifest(members["model.json"], str(path))
    members |= {manifest["stages"][name]["file"]: data for name, data in stages.items()}
    try:
        with zipfile.ZipFile(aside, "w") as archive:
            for name, data in members.items():
                info = zipfile.ZipInfo(name, EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, data, compresslevel=9)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
