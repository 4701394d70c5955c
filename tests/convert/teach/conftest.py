"""A teacher without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgemask_convert.teach.protocol import SoftInstances


class FakeTeacher:
    """Gives the answers it was made with, and counts the questions."""

    name = "fake"

    def __init__(self, found: SoftInstances | None = None, promptable: bool = True) -> None:
        self.categories = {7: "Disc", 9: "hat"}
        self.found = SoftInstances.empty() if found is None else found
        self.promptable = promptable
        self.labelled = self.segmented = 0

    def label(self, image: Any) -> SoftInstances:
        self.labelled += 1
        return self.found

    def segment(self, image: Any, boxes: Any, class_ids: Any) -> Any:
        self.segmented += 1
        self.asked = boxes, class_ids
        return np.full((len(boxes), 4, 4), 0.9, np.float32) if self.promptable else None


@pytest.fixture
def fake_teacher() -> type[FakeTeacher]:
    """The class of a teacher of discs (its id 7) and hats (9)."""
    return FakeTeacher
