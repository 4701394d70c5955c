"""What the tests of the command line share."""

from __future__ import annotations

import pytest


@pytest.fixture
def photo(tmp_path, scene):
    return str(scene.save(tmp_path / "photo.png"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
