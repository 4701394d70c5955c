"""Which category of the dataset is which of the teacher's: they are matched by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protocol import SoftInstances, TeacherError

__all__ = ["Vocabulary"]


class Vocabulary:
    """Translates class ids between a teacher and a dataset.

    Parameters
    ----------
    teacher : mapping of int to str
        The teacher's categories.
    dataset : sequence of dict
        The COCO file's ``categories``.
    only : collection of int, optional
        Ids of the dataset's categories to keep to.

    Attributes
    ----------
    known : list of int
        Ids of the dataset's categories that the teacher knows.

    Raises
    ------
    TeacherError
        They have no (chosen) category name in common (upper and lower case count as the same), or
        the dataset has no category of a chosen id.
    """

    def __init__(
        self,
        teacher: Mapping[int, str],
        dataset: Sequence[Mapping[str, Any]],
        only: Collection[int] | None = None,
    ) -> None:
        self._teacher = frozenset(teacher)
        by_name = {name.casefold(): key for key, name in teacher.items()}
        listed = sorted(c["id"] for c in dataset)
        unknown = sorted(set(only or ()).difference(listed))
        if unknown:
            raise TeacherError(f"the dataset has no categories {unknown}: it has {listed}")
        dataset = [c for c in dataset if only is None or c["id"] in only]
        pairs = {c["id"]: by_name.get(str(c["name"]).casefold()) for c in dataset}
        self._to_teacher = {own: other for own, other in pairs.items() if other is not None}
        self._to_dataset = {other: own for own, other in self._to_teacher.items()}
        if not self._to_teacher:
            raise TeacherError(
                f"the teacher's categories ({_some(teacher.values())}) and the dataset's "
                f"({_some(str(c['name']) for c in dataset)}) have no name in common: rename one "
                "or choose others"
            )

    @property
    def known(self) -> list[int]:
        return sorted(self._to_teacher)

    def to_teacher(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the teacher's ids of known categories of the dataset."""
        return np.array([self._to_teacher[int(i)] for i in ids], np.int32)

    def to_dataset(self, found: SoftInstances) -> SoftInstances:
        """Return a teacher's instances with the dataset's ids, those of other categories dropped.

        Raises
        ------
        TeacherError
            An instance has a class id that is not among the teacher's categories' keys.
        """
        strange = sorted(set(found.class_ids.tolist()) - self._teacher)
        if strange:
            raise TeacherError(
                f"the teacher gave the class ids {strange[:4]}, which are no keys of its categories"
            )
        kept = np.array([int(i) in self._to_dataset for i in found.class_ids], bool)
        chosen = found[kept]
        ids = [self._to_dataset[int(i)] for i in chosen.class_ids]
        return SoftInstances(chosen.boxes, chosen.scores, ids, chosen.masks)


def _some(names) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (", …" if len(listed) > 4 else "")
