"""A journal keeps what was written, whatever ends the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edgemask_convert.jobs.journal import Journal

from edgemask.errors import OutputError


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.partial", {"teacher": "a"})
    journal.add(1, {"found": []})
    journal.close()
    journal._stream = open("/dev/full", "ab")  # noqa: SIM115
    with pytest.raises(OutputError, match=r"out\.partial cannot be written \(No space left"):
        journal.add(2, {"found": []})
    journal.close()  # as whoever is told of it does
    again = Journal(tmp_path / "out.partial", {"teacher": "a"})
    assert list(again.done) == [1]
    again.close()
