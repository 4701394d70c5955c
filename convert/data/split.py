"""Dividing a dataset into what is learnt from and what is measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .coco_fields import DatasetError

__all__ = ["one_sided", "split_dataset"]


def split_dataset(
    data: Mapping[str, Any],
    share: float,
    seed: int = 0,
    by_folder: bool = False,
    crowds_as_objects: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the images so that each class is in both parts, roughly in proportion.

    The rarest class chooses first, as in iterative stratification (Sechidis et al. 2011).

    Parameters
    ----------
    data : mapping
        A COCO dataset.
    share : float
        Of the images that the second part gets, above 0 and below 1.
    seed : int
        The same gives the same division.
    by_folder : bool
        Keep the images of a folder together. Frames of one video resemble each other: measured on
        the neighbours of what it has learnt, a network looks better than it is.
    crowds_as_objects : bool
        Set ``iscrowd`` to 0 everywhere: CVAT exports each mask that was painted as a crowd.

    Returns
    -------
    train, dev : dict
        COCO datasets with the same categories; ids are kept.

    Raises
    ------
    DatasetError
        The share is out of range, or too little is there to divide.
    """
    if not 0 < share < 1:
        raise DatasetError(f"the dev share is {share}: give a number between 0 and 1, such as 0.2")
    if crowds_as_objects:
        data = {**data, "annotations": [{**a, "iscrowd": 0} for a in data["annotations"]]}
    groups: dict[Any, list[int]] = {}
    for info in data["images"]:
        key = str(PurePosixPath(info["file_name"]).parent) if by_folder else info["id"]
        groups.setdefault(key, []).append(info["id"])
    if len(groups) < 2:
        what = "folder" if by_folder else "image"
        raise DatasetError(f"there is {len(groups)} {what}; two are needed to divide the dataset")
    classes: dict[int, Counter] = {info["id"]: Counter() for info in data["images"]}
    for entry in data["annotations"]:
        if entry["image_id"] in classes and not entry.get("iscrowd"):
            classes[entry["image_id"]][entry["category_id"]] += 1
    contents = {key: sum((classes[i] for i in ids), Counter()) for key, ids in groups.items()}
    order = list(groups)
    np.random.default_rng(seed).shuffle(order)
    dev = _choose(order, groups, contents, share)
    if not dev:
        hint = "; without --by-folder the images are divided" if by_folder else ""
        raise DatasetError(
            f"every {'folder' if by_folder else 'image'} has the only objects of a class, so none "
            f"can be set aside{hint}"
        )
    chosen = {image_id for key in dev for image_id in groups[key]}
    return _part(data, chosen, False), _part(data, chosen, True)


def one_sided(parts: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[str]:
    """Names of the classes of which only one of the two parts has objects."""
    shown = [{a["category_id"] for a in p["annotations"] if not a.get("iscrowd")} for p in parts]
    lonely = shown[0] ^ shown[1]
    return [c["name"] for c in parts[0]["categories"] if c["id"] in lonely]


def _choose(
    order: list[Any], groups: Mapping[Any, list[int]], contents: Mapping[Any, Counter], share: float
) -> set[Any]:
    """Groups for the second part, class by class from the rarest, then any until it is full."""
    totals = sum(contents.values(), Counter())
    dev: set[Any] = set()
    room = share * sum(len(ids) for ids in groups.values())
    size, have = 0, Counter()
    for wanted in [*sorted(totals, key=lambda c: (totals[c], c)), None]:
        for key in order:
            if len(dev) == len(groups) - 1:
                return dev
            enough = size >= room if wanted is None else have[wanted] >= share * totals[wanted]
            if enough:
                break
            too_large = size > 0 and size + len(groups[key]) / 2 > room
            if key in dev or too_large or (wanted is not None and not contents[key][wanted]):
                continue
            # A class with a single group must stay where it can be learnt.
            alone = any(contents[key][c] == totals[c] for c in contents[key])
            if alone:
                continue
            dev.add(key)
            size += len(groups[key])
            have += contents[key]
    return dev


def _part(data: Mapping[str, Any], chosen: set[int], inside: bool) -> dict[str, Any]:
    images = [info for info in data["images"] if (info["id"] in chosen) == inside]
    kept = {info["id"] for info in images}
    annotations = [entry for entry in data["annotations"] if entry["image_id"] in kept]
    return {**data, "images": images, "annotations": annotations}
