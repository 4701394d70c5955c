"""``edgemask doctor``: what is wrong with this board, and which command fixes it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from edgemask.errors import SourceError

HELP = "check this system and print the command that fixes each problem"
EXAMPLE = "edgemask doctor"

SCHEMA = "edgemask.doctor/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines"
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        default=Path("/"),
        help="check the system in this folder, for example a mounted SD card, without running "
        "anything from it (default: /)",
    )


def run(options: argparse.Namespace) -> int:
    """Print the findings; 1 if there is a problem."""
    from edgemask.doctor import Host, examine

    root = options.root.absolute()
    if not root.is_dir():
        raise SourceError(f"there is no folder {root}: mount the system first, or leave out --root")
    host = Host(root, live=root == Path("/"))
    if not host.live and not host.os_release():
        raise SourceError(
            f"{root} has no etc/os-release, so it is not the root of a Linux system: give the "
            "folder that holds its etc and usr"
        )
    findings = []
    for finding in examine(host):
        findings.append(finding)
        if not options.json:
            print(f"{finding.status:<8s} {finding.check:<12s} {finding.text}", flush=True)
            if finding.cure:
                print(f"{'':8s} {'':12s} -> {finding.cure}", flush=True)
    problems = sum(finding.status == "problem" for finding in findings)
    if options.json:
        record = {
            "schema": SCHEMA,
            "root": str(root),
            "problems": problems,
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print()
        print(f"{problems} problem{'' if problems == 1 else 's'}" if problems else "no problems")
    return 1 if problems else 0
