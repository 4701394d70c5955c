"""The ``edgemask`` command. Each verb is a module; what it needs is imported when it runs."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from edgemask import __version__
from edgemask.cli import (
    bench,
    common,
    demo,
    doctor,
    eval,
    export,
    info,
    predict,
    record,
    serve,
    track,
    watch,
)
from edgemask.cli.common import report_error, report_warning
from edgemask.errors import EdgeMaskError
from edgemask.terminal import give_up_stdout, have_stderr

__all__ = ["build_parser", "main"]

# The matrix products between the networks are too small to share. On a busy machine the threads
# of NumPy's BLAS wait for each other: one thread took 23 ms a frame where two took 75. NumPy reads
# this once, when a verb loads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_VERBS = (demo, predict, record, track, export, eval, info, doctor, watch, serve, bench)


class _UsageError(Exception):
    """The arguments cannot be understood."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation would mean something else, or nothing, once there is another option.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required") and any(
            text[:1] == "-" and os.path.lexists(text) for text in sys.argv
        ):
            message += " (give a file whose name begins with - as ./-name)"
        raise _UsageError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="edgemask",
        description="Instance segmentation on small ARM boards.",
        epilog="Try it: edgemask demo",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"edgemask {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for module in _VERBS:
        verb = verbs.add_parser(
            module.__name__.rpartition(".")[2],
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        # Without a default, which would hide one that stands before the verb.
        verb.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )  # fmt: skip
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 if everything worked, 1 if anything did not, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    common.debug = "--debug" in arguments
    have_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may be no text, and a zone's name none that the terminal can show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = report_warning
            status = _run(arguments)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()  # here, where a closed pipe can still be dealt with
        return status
    except KeyboardInterrupt:
        report_error("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone.
        give_up_stdout()
        return 1
    except (EdgeMaskError, _UsageError) as error:
        report_error(str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            # What is written to files has errors of its own.
            give_up_stdout()
            report_error(f"the output cannot be written ({error.strerror}): free some space")
            return 1
        report_error(
            f"unexpected {type(error).__name__}: {error}; please report it with the output of the "
            "same command and --debug"
        )
    return 1


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return 0
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    return int(options.run(options))
