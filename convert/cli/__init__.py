"""``edgemask-convert``: the toolchain's command line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback

VERBS = ("train", "quantize", "verify", "evaluate", "pack")


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
        module = import_module(f".{name}", __package__)
        module.add_parser(verbs)
    options = parser.parse_args(argv)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("edgemask-convert: interrupted", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"edgemask-convert: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
