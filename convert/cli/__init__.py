"""``edgemask-convert``: the toolchain's command line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings

VERBS = (
    "import-labelme", "import-maskrcnn2go", "check", "split", "teach", "prune", "fuse", "imitate",
    "train", "average", "quantize", "verify", "evaluate", "pack", "report",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one verb; errors become one line on stderr and exit status 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(
        prog="edgemask-convert",
        description="Train, quantize, prove and pack models for edgemask.",
        epilog="example: edgemask-convert train --annotations train.json --images images "
        "--init mobilenet_v2.npz --out runs/people",
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
    options = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return options.run(options)
    except KeyboardInterrupt:
        print("edgemask-convert: interrupted", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if options.debug:
            traceback.print_exc()
        text = " ".join(str(error).split())
        if isinstance(error, ModuleNotFoundError):
            text += "; install the toolchain: pip install 'edgemask[convert]'"
        print(f"edgemask-convert: error: {text}", file=sys.stderr)
        return 1


def _show_warning(message, category, *_, **__) -> None:
    print(f"edgemask-convert: warning: {' '.join(str(message).split())}", file=sys.stderr)
