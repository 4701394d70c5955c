"""``edgemask-convert``: the toolchain's command line."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
import warnings
from typing import NoReturn

from edgemask.errors import EdgeMaskError
from edgemask.terminal import give_up_stdout, have_stderr

from ..quiet import import_tensorflow

VERBS = (
    "import-labelme", "import-maskrcnn2go", "check", "split", "teach", "prune", "fuse", "imitate",
    "train", "average", "quantize", "verify", "evaluate", "pack", "report",
)  # fmt: skip
# Those that always need TensorFlow; others do if they are given a checkpoint, or teachers that run
# in it.
TENSORFLOW_VERBS = {
    "prune", "fuse", "imitate", "train", "average", "quantize", "verify", "report",
}  # fmt: skip
TENSORFLOW_INPUTS = (".npz", "maskrcnn2go:", "checkpoint:")


class _UsageError(ValueError):
    """The arguments cannot be understood."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options) -> None:
        # An abbreviation would mean something else, or nothing, once there is another option.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; errors become one line on stderr and exit status 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = sys.argv[1:] if argv is None else argv
    have_stderr()
    parser = _Parser(
        prog="edgemask-convert",
        description="Train, quantize, verify and pack models for edgemask.",
        epilog="example: edgemask-convert train --annotations train.json --images images "
        "--init mobilenet_v2_coco_ssd.npz --out runs/people",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    # Imported late: --help must not wait for TensorFlow.
    from importlib import import_module

    for name in VERBS:
        module = import_module(f".{name.replace('-', '_')}", __package__)
        module.add_parser(verbs)
    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                          help="show the traceback of an error")  # fmt: skip
    try:
        options = parser.parse_args(arguments)
        if options.verb in TENSORFLOW_VERBS or any(
            mark in text for text in arguments for mark in TENSORFLOW_INPUTS
        ):
            import_tensorflow()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a closed pipe can still be dealt with
        return status
    except KeyboardInterrupt:
        print("edgemask-convert: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        give_up_stdout()
        return 1
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        text = " ".join(str(error).split())
        if not isinstance(error, ValueError | RuntimeError | OSError | ImportError):
            text = (
                f"unexpected {type(error).__name__}: {text}; please report it with the output of "
                "the same command and --debug"
            )
        if _is_full(error):
            give_up_stdout()
            text = f"the output cannot be written ({error.strerror}): free some space"
        if isinstance(error, FileNotFoundError) and error.filename and error.errno:
            text = f"there is no {error.filename}: check the path"
        if isinstance(error, ModuleNotFoundError):
            text += "; install the toolchain: pip install 'edgemask[convert]'"
        print(f"edgemask-convert: error: {text}", file=sys.stderr)
        return 1


def _is_full(error: Exception) -> bool:
    """Whether stdout, or a file of unknown name, is on a full disk. Others have a message."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    return full and not isinstance(error, EdgeMaskError)


def _show_warning(message, category, *_, **__) -> None:
    print(f"edgemask-convert: warning: {' '.join(str(message).split())}", file=sys.stderr)
