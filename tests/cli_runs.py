"""Running the command line in this process, for the tests of its verbs."""

from __future__ import annotations

from pathlib import Path

from edgemask.cli import main


def run(capsys, *arguments):
    """Run the command line and return its status and what it printed."""
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def one_error(err, *words):
    """Check that stderr is one error line with all the words."""
    assert err.startswith("edgemask: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for word in words:
        assert word in err
