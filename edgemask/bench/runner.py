"""Starting a worker for each configuration, and listening to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgemask
from edgemask import errors
from edgemask.bench.configuration import Configuration
from edgemask.errors import EdgeMaskError

__all__ = ["run"]


def run(configuration: Configuration, say: Callable[[float], None]) -> dict[str, Any]:
    """Measure one configuration in a process of its own.

    Parameters
    ----------
    configuration : Configuration
    say : callable
        Is told the share of the work that is done, 0 to 1.

    Returns
    -------
    dict
        What :func:`edgemask.bench.worker.measure` returned.

    Raises
    ------
    EdgeMaskError
        Whatever the worker raised, or that it ended without a result.
    """
    command = [sys.executable, "-m", "edgemask.bench.worker", configuration.to_json()]
    # The worker must find the edgemask that this process runs, installed or not.
    folder = str(Path(edgemask.__file__).resolve().parents[1])
    search = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stderr, encoding="utf-8",
        ) as worker,
    ):  # fmt: skip
        assert worker.stdout is not None
        try:
            result = _listen(worker.stdout, say)
        except BaseException:
            worker.terminate()  # nothing is left of it when this one is interrupted
            raise
        worker.wait()
        if result is None:
            stderr.seek(0)
            last = (stderr.read().strip().splitlines() or ["no message"])[-1]
            raise EdgeMaskError(
                f"the measuring process ended with status {worker.returncode} ({last}): try fewer "
                "threads or a smaller short side, and check dmesg for a lack of memory"
            )
    return result


def _listen(lines: Any, say: Callable[[float], None]) -> dict[str, Any] | None:
    result: dict[str, Any] | None = None
    for line in lines:
        message = json.loads(line)
        if "done" in message:
            say(message["done"])
        elif "warning" in message:
            warnings.warn(message["warning"], RuntimeWarning, stacklevel=2)
        elif "error" in message:
            raise getattr(errors, message["kind"], EdgeMaskError)(message["error"])
        else:
            result = message["result"]
    return result
