"""Model packs: one zip with a ``model.json`` manifest and a TFLite file per stage.

A pack may come from anywhere, so it is treated as hostile until it has been checked: the number
and size of members, their names, their hashes, and the type and range of every manifest field that
the rest of the package relies on. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemask.errors import ModelError
from edgemask.manifest import MAX_MEMBER_BYTES, SAFE_NAME, SCHEMA, parse_manifest

__all__ = ["SCHEMA", "ModelPack", "bundled_packs", "load_pack"]

MAX_MEMBERS = 16
MAX_MANIFEST_BYTES = 2**20
MAX_PACK_BYTES = 256 * 2**20
_DIRECTORY_ENTRY = b"PK\1\2"
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA takes the memory that a file asks for

_DAMAGED = "it is damaged or was not downloaded completely: fetch the pack again"


@dataclass(frozen=True)
class ModelPack:
    """A checked model pack held in memory.

    Attributes
    ----------
    manifest : dict
        ``model.json``, validated.
    path : str
        Where the pack was read from.
    sha256 : str
        Hash of the zip file, 64 hexadecimal digits: what a result should quote.
    stages : dict of str to bytes
        TFLite flatbuffer of each stage (``backbone``, ``box_head``, ``mask_head``, …).
    """

    manifest: Mapping[str, Any]
    path: str
    sha256: str
    stages: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the model, a plain word such as ``people``."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """Version of the model (not of edgemask)."""
        return str(self.manifest["version"])

    @property
    def input(self) -> Mapping[str, Any]:
        """Layout, colour order, ``mean``, ``std``, ``short_side``, ``max_aspect``, ``stride``."""
        return self._section("input")

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Public id of each class in the order of the network's foreground outputs."""
        return tuple(entry["id"] for entry in self.manifest["classes"])

    @property
    def class_names(self) -> dict[int, str]:
        """Name of each class by its public id."""
        return {entry["id"]: entry["name"] for entry in self.manifest["classes"]}

    @property
    def rpn(self) -> Mapping[str, Any]:
        """Levels, strides, anchors, box coding and limits of the proposal stage."""
        return self._section("rpn")

    @property
    def roi(self) -> Mapping[str, Any]:
        """Feature levels and pooling of the box and mask heads."""
        return self._section("roi")

    @property
    def detections(self) -> Mapping[str, Any]:
        """Box coding weights and NMS threshold of the second stage."""
        return self._section("detections")

    @property
    def mask(self) -> Mapping[str, Any]:
        """Size and threshold of the mask head's output, and whether it is class-agnostic."""
        return self._section("mask")

    @property
    def keypoint(self) -> Mapping[str, Any] | None:
        """Class, names, skeleton and heatmaps of the keypoints; None where the pack has none."""
        return self._section("keypoint") if "keypoint" in self.manifest else None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Measured accuracy of this int8 file and of its float parent."""
        return self._section("metrics")

    def stage_spec(self, name: str) -> Mapping[str, Any]:
        """Return the manifest entry of a stage, for :class:`edgemask.runtime.Stage`."""
        spec: Mapping[str, Any] = self.manifest["stages"][name]
        return spec

    def _section(self, key: str) -> Mapping[str, Any]:
        section: Mapping[str, Any] = self.manifest[key]
        return section


def bundled_packs() -> list[str]:
    """Return the names of the packs that ship with edgemask, sorted."""
    folder = importlib.resources.files("edgemask") / "models"
    if not folder.is_dir():
        return []
    return sorted(entry.name[:-4] for entry in folder.iterdir() if entry.name.endswith(".zip"))


def load_pack(name_or_path: str | os.PathLike[str]) -> ModelPack:
    """Read and check a model pack.

    Parameters
    ----------
    name_or_path : str or path
        A bundled name (``"people"``) or the path of a zip.

    Returns
    -------
    ModelPack

    Raises
    ------
    ModelError
        The file is missing, damaged, unsafe, from a newer edgemask, or inconsistent.
    """
    path, data = _read_pack(name_or_path)
    # Before zipfile makes an object of each; a few may be there by chance, in compressed data.
    members = data.count(_DIRECTORY_ENTRY)
    if members > 64 * MAX_MEMBERS:
        raise _too_many(path, members)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest, stages = _read_members(archive, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not a complete zip file ({error}): {_DAMAGED}") from error
    except (NotImplementedError, RuntimeError) as error:  # encryption, or a newer zip
        raise ModelError(f"{path} cannot be unpacked ({error}): pack it with plain zip") from error
    return ModelPack(manifest, path, hashlib.sha256(data).hexdigest(), stages)


def _read_pack(name_or_path: str | os.PathLike[str]) -> tuple[str, bytes]:
    try:
        text = os.fspath(name_or_path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ModelError(
            f"the model is {name_or_path!r}: use one of {_names()}, or the path to a pack"
        )
    if not text:
        raise ModelError(f"the model name is empty: use one of {_names()}, or the path to a pack")
    path = Path(text)
    bundled = importlib.resources.files("edgemask") / "models" / f"{text}.zip"
    try:
        if SAFE_NAME.match(text) and not path.is_file() and bundled.is_file():
            return str(bundled), bundled.read_bytes()
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(f"{path} is a folder: give the .zip file of a model pack")
        if size > MAX_PACK_BYTES:
            raise ModelError(
                f"{path} has {size / 2**20:.0f} MB, more than the {MAX_PACK_BYTES >> 20} MB that a "
                "model pack may have: check that it is a model pack"
            )
        return str(path), path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"model pack {text!r} cannot be read ({reason}): use one of {_names()}, or the path to "
            "a pack .zip"
        ) from error


def _names() -> str:
    return ", ".join(bundled_packs()) or "(no bundled packs found)"


def _too_many(path: str, members: int) -> ModelError:
    return ModelError(
        f"{path} has {members} members, more than the {MAX_MEMBERS} of a model pack: check that it "
        "is a model pack"
    )


def _read_members(archive: zipfile.ZipFile, path: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise _too_many(path, len(members))
    seen: set[str] = set()
    for info in members:
        # zipfile cuts names at a NUL byte; the original is what another tool would see.
        if not SAFE_NAME.match(info.orig_filename) or info.is_dir():
            raise ModelError(
                f"{path} has a member named {info.orig_filename!r}, which could leave the pack: "
                "do not use this file; get the pack from its author"
            )
        if info.filename in seen:
            raise ModelError(f"{path} has two members named {info.filename!r}: rebuild the pack")
        seen.add(info.filename)
        if info.compress_type not in _PLAIN:
            raise ModelError(
                f"{path} cannot be unpacked ({info.filename} is neither deflated nor stored): pack "
                "it with plain zip"
            )
        if info.file_size > MAX_MEMBER_BYTES:
            raise ModelError(
                f"{path}: member {info.filename} claims {info.file_size / 2**20:.0f} MB, more than "
                f"the limit of {MAX_MEMBER_BYTES >> 20} MB: do not use this file"
            )
    if "model.json" not in seen:
        raise ModelError(f"{path} has no model.json: it is not an edgemask model pack")
    manifest = parse_manifest(_read_member(archive, "model.json", MAX_MANIFEST_BYTES, path), path)
    stages: dict[str, bytes] = {}
    for name, spec in manifest["stages"].items():
        if spec["file"] not in seen:
            raise ModelError(f"{path} has no member {spec['file']} for stage {name}: {_DAMAGED}")
        content = _read_member(archive, spec["file"], spec["bytes"], path)
        if len(content) != spec["bytes"]:
            raise ModelError(
                f"{path}: {spec['file']} has {len(content)} bytes, model.json says "
                f"{spec['bytes']}: {_DAMAGED}"
            )
        if hashlib.sha256(content).hexdigest() != spec["sha256"]:
            raise ModelError(f"{path}: the sha256 of {spec['file']} does not match: {_DAMAGED}")
        stages[name] = content
    return manifest, stages


def _read_member(archive: zipfile.ZipFile, name: str, limit: int, path: str) -> bytes:
    # A header may lie about the size, so the read itself is bounded too.
    with archive.open(name) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ModelError(f"{path}: {name} is larger than {limit} bytes: {_DAMAGED}")
    return content
