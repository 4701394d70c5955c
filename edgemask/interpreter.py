"""Which TFLite runtime works on this machine.

The only module that imports ``ai_edge_litert`` or ``tflite_runtime``. A runtime counts as working
when it has run a tiny int8 network, not when it can be imported: tflite-runtime imports happily
beside NumPy 2 and then fails on the first interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.resources
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import RuntimeUnavailable

__all__ = [
    "RuntimeInfo",
    "count_delegates",
    "default_threads",
    "load_runtime",
    "pointer_bits",
    "tensor_view",
]

_CANDIDATES = {
    "litert": ("ai-edge-litert", "ai_edge_litert.interpreter"),
    "tflite": ("tflite-runtime", "tflite_runtime.interpreter"),
}
_ENVIRONMENT = "EDGEMASK_RUNTIME"
_ABSENT = "(not installed)"


@dataclass(frozen=True)
class RuntimeInfo:
    """A runtime that has been seen to work.

    Attributes
    ----------
    name : str
        Name of its distribution: ``ai-edge-litert`` or ``tflite-runtime``.
    version : str
        Version of the distribution.
    interpreter : type
        Its ``Interpreter`` class.
    int8_delegate : bool
        Whether XNNPACK takes int8 networks. Without it int8 runs many times slower.
    """

    name: str
    version: str
    interpreter: Any
    int8_delegate: bool


def default_threads() -> int:
    """Return the number of CPUs this process may use: more threads than that are slower."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def load_runtime() -> RuntimeInfo:
    """Return the first runtime that works: ai-edge-litert, then tflite-runtime.

    The environment variable ``EDGEMASK_RUNTIME`` (``litert`` or ``tflite``) restricts the choice.
    The result is kept for the life of the process.

    Raises
    ------
    RuntimeUnavailable
        None works; the message says why for each of them and which command mends it.
    """
    return _load_runtime(os.environ.get(_ENVIRONMENT, ""))


@functools.cache
def _load_runtime(choice: str) -> RuntimeInfo:
    if choice and choice not in _CANDIDATES:
        raise RuntimeUnavailable(
            f"{_ENVIRONMENT}={choice!r} is not a runtime: set it to {' or '.join(_CANDIDATES)}, "
            "or unset it"
        )
    failures, details = [], []
    for key in [choice] if choice else list(_CANDIDATES):
        distribution, module = _CANDIDATES[key]
        printed: list[str] = []
        try:
            with _quiet_stderr(printed):
                return _probe(distribution, module)
        # Bindings for another NumPy raise SystemError or AttributeError, not just ImportError.
        except Exception as error:
            failures.append(f"{distribution} {_version(distribution)}: {_reason(error)}")
            details.extend(printed)
    problem = RuntimeUnavailable(
        f"no TFLite runtime works in Python {platform.python_version()} ({platform.machine()}, "
        f"{pointer_bits()}-bit) with numpy {np.__version__}. Tried {'; '.join(failures)}. "
        f"To fix it: {_cure(choice)}"
    )
    if details:  # NumPy's page of advice, for whoever asks for the traceback
        problem.add_note("".join(details))
    raise problem


def _reason(error: BaseException) -> str:
    """Return the messages of an error and of what caused it, on one line."""
    messages = []
    link: BaseException | None = error
    while link is not None:
        messages.append(" ".join(str(link).split()) or type(link).__name__)
        link = link.__cause__ or link.__context__
    return ", because ".join(dict.fromkeys(messages))


def _probe(distribution: str, module: str) -> RuntimeInfo:
    """Import a runtime and run the identity network on it."""
    interpreter_class = import_module(module).Interpreter
    content = (importlib.resources.files("edgemask") / "assets" / "probe.tflite").read_bytes()
    interpreter = interpreter_class(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    sample = np.arange(-8, 8, dtype=np.int8).reshape(source["shape"])
    interpreter.set_tensor(source["index"], sample)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    if not np.array_equal(result, sample):
        raise RuntimeError("it computes wrong results on this machine")
    delegated = count_delegates(interpreter) != 0
    return RuntimeInfo(distribution, _version(distribution), interpreter_class, delegated)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT


def pointer_bits() -> int:
    """Return 64 or 32: whether this Python, not the kernel below it, is a 64-bit program."""
    return ctypes.sizeof(ctypes.c_void_p) * 8


def _cure(choice: str) -> str:
    new_numpy = int(np.__version__.split(".")[0]) >= 2
    # Unpinned, pip would bring NumPy 2, which breaks apt's picamera2 on Bookworm.
    litert = "pip install ai-edge-litert" + ("" if new_numpy else ' "numpy<2"')
    tflite = 'pip install tflite-runtime "numpy<2"'
    if choice == "tflite":
        return f"{tflite} (Python 3.11 or older), or unset {_ENVIRONMENT}"
    if pointer_bits() == 32:
        return (
            f"install 64-bit Raspberry Pi OS, where {litert} works; on 32-bit, with Python 3.11 or "
            f"older, {tflite} works, many times slower"
        )
    if new_numpy and _version("tflite-runtime") != _ABSENT:
        return f"{litert} (tflite-runtime itself needs numpy 1: {tflite}, many times slower)"
    return litert


@contextlib.contextmanager
def _quiet_stderr(printed: list[str]) -> Iterator[None]:
    """Hold back what the native library announces on file descriptor 2.

    TFLite prints INFO lines once per process and has no switch against it. After an error, all that
    was printed goes to `printed`; otherwise everything but the INFO lines is passed on. Where there
    is nowhere to hold it, on a full or read-only disk, it is not held back.
    """
    held: IO[bytes] | None = None
    with contextlib.suppress(AttributeError, OSError, ValueError):  # nor without a usable stderr
        sys.stderr.flush()
        os.fstat(2)
        held = tempfile.TemporaryFile()  # noqa: SIM115, closed below
    if held is None:
        yield
        return
    failed = True
    with held as captured:
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(saved, 2)
            captured.seek(0)
            for line in captured:
                if failed:
                    printed.append(line.decode(errors="replace"))
                elif not line.startswith((b"INFO:", b"WARNING: All log messages before")):
                    os.write(2, line)
            os.close(saved)


def count_delegates(interpreter: Any) -> int:
    """Return how many partitions of an interpreter's graph a delegate runs."""
    return sum(node["op_name"] == "DELEGATE" for node in interpreter._get_ops_details())


def tensor_view(interpreter: Any, index: int) -> NDArray[Any]:
    """Return a tensor of an interpreter as a writable view of its memory.

    Valid until the interpreter allocates its tensors again. The runtime refuses to run while an
    array of its own making is alive, so the address is taken from one and a second array, which it
    does not count, is laid over it.
    """
    theirs = interpreter.tensor(index)()
    memory: Any = (ctypes.c_char * theirs.nbytes).from_address(theirs.ctypes.data)
    memory.owner = interpreter  # the memory must not go before the view does
    return np.frombuffer(memory, theirs.dtype).reshape(theirs.shape)
