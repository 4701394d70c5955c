"""The commands of the documentation have verbs and options that exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from edgemask_convert.cli import VERBS, main

DOCS = Path(__file__).resolve().parents[3] / "docs"


def commands() -> list[tuple[str, str]]:
    """Page and text of each ``edgemask-convert`` command, continued lines joined."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            if line.startswith("edgemask-convert "):
                found.append((page.name, line))
    return found


def test_commands_were_found() -> None:
    pages = [page for page, _ in commands()]
    assert pages.count("own-data.md") >= 10
    assert "report.md" in pages


@pytest.mark.parametrize(("page", "command"), commands())
def test_options_exist(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in VERBS:
        module = importlib.import_module(f"edgemask_convert.cli.{verb.replace('-', '_')}")
        monkeypatch.setattr(module, "run", lambda options: 7)
    assert main(shlex.split(command)[1:]) == 7
