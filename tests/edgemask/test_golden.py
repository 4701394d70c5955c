"""The whole pipeline gives the bits that are on record, whatever machine this is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from edgemask.interpreter import load_runtime

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "pipeline_golden.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that writes the record."""
    spec = importlib.util.spec_from_file_location("golden", DATA / "make_pipeline_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_stage_gives_the_bits_on_record(maker: ModuleType) -> None:
    if not load_runtime().int8_delegate:
        pytest.skip("XNNPACK's int8 arithmetic is what is on record")
    found = maker.golden()
    cure = "if this is meant, run python tests/data/make_pipeline_golden.py"
    assert found["model_sha256"] == GOLDEN["model_sha256"], f"another bundled model: {cure}"
    for name, hashes in GOLDEN["frames"].items():
        # The first that differs is where the difference comes from.
        differ = [key for key, value in hashes.items() if found["frames"][name].get(key) != value]
        assert not differ, f"{name}, from {differ[0]} on, with {found['made_with']}: {cure}"


def test_the_record_has_something_in_it() -> None:
    counts = {name: hashes["instances"] for name, hashes in GOLDEN["frames"].items()}
    assert counts["astronaut"] >= 1
    assert counts["crowd"] >= 5
