"""The runtime is chosen by trying it, and the message says what to do where none works."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from edgemask import interpreter
from edgemask.errors import RuntimeUnavailable
from edgemask.interpreter import default_threads, load_runtime


@pytest.fixture
def fresh_choice(monkeypatch):
    """Forget which runtime was chosen, before and after."""
    interpreter._load_runtime.cache_clear()
    monkeypatch.delenv("EDGEMASK_RUNTIME", raising=False)
    yield
    interpreter._load_runtime.cache_clear()


def test_runtime_that_works_here():
    found = load_runtime()
    assert found.name in ("ai-edge-litert", "tflite-runtime")
    assert found.version[0].isdigit()
    assert load_runtime() is found


def test_probe_is_small():
    probe = interpreter.importlib.resources.files("edgemask") / "assets" / "probe.tflite"
    assert len(probe.read_bytes()) < 2048


def test_default_threads_are_the_cpus_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert default_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


def test_environment_names_an_unknown_runtime(fresh_choice, monkeypatch):
    monkeypatch.setenv("EDGEMASK_RUNTIME", "onnx")
    with pytest.raises(RuntimeUnavailable, match=r"EDGEMASK_RUNTIME='onnx'.*litert or tflite"):
        load_runtime()


def test_environment_restricts_the_choice(fresh_choice, monkeypatch):
    tried = []

    def missing(module):
        tried.append(module)
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(interpreter, "import_module", missing)
    monkeypatch.setenv("EDGEMASK_RUNTIME", "tflite")
    with pytest.raises(RuntimeUnavailable, match="tflite-runtime"):
        load_runtime()
    assert tried == ["tflite_runtime.interpreter"]
    monkeypatch.delenv("EDGEMASK_RUNTIME")
    with pytest.raises(RuntimeUnavailable):
        load_runtime()
    assert tried[1:] == ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"]


def test_runtime_that_imports_but_cannot_build_an_interpreter(fresh_choice, monkeypatch):
    # What tflite-runtime does beside NumPy 2.
    def build(**_):
        raise SystemError("numpy.core.multiarray failed\nto import")

    def import_module(name):
        if name.startswith("ai_edge"):
            raise ImportError("No module named 'ai_edge_litert'")
        return types.SimpleNamespace(Interpreter=build)

    monkeypatch.setattr(interpreter, "import_module", import_module)
    with pytest.raises(RuntimeUnavailable) as caught:
        load_runtime()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"Python {sys.version_info.major}.{sys.version_info.minor}",
        f"numpy {np.__version__}",
        "No module named 'ai_edge_litert'",
        "numpy.core.multiarray failed to import",
        "pip install ai-edge-litert",
    ):
        assert part in message


def test_cure_keeps_numpy_1_and_32_bit_systems_apart(monkeypatch):
    monkeypatch.setattr(interpreter, "pointer_bits", lambda: 64)
    monkeypatch.setattr(interpreter, "_version", lambda _: interpreter._ABSENT)
    monkeypatch.setattr(interpreter.np, "__version__", "1.26.4")
    assert interpreter._cure("") == 'pip install ai-edge-litert "numpy<2"'
    monkeypatch.setattr(interpreter.np, "__version__", "2.1.0")
    assert interpreter._cure("") == "pip install ai-edge-litert"
    assert 'pip install tflite-runtime "numpy<2"' in interpreter._cure("tflite")
    monkeypatch.setattr(interpreter, "_version", lambda _: "2.14.0")
    assert interpreter._cure("").startswith("pip install ai-edge-litert (tflite-runtime itself")
    monkeypatch.setattr(interpreter, "pointer_bits", lambda: 32)
    assert "64-bit Raspberry Pi OS" in interpreter._cure("")
    assert 'tflite-runtime "numpy<2"' in interpreter._cure("")


def test_reasons_are_followed_to_their_cause():
    error = SystemError("returned a result")
    error.__cause__ = ImportError("numpy.core.multiarray failed\nto import")
    expected = "returned a result, because numpy.core.multiarray failed to import"
    assert interpreter._reason(error) == expected
    assert interpreter._reason(KeyError()) == "KeyError"


def test_runtime_that_computes_nonsense_is_not_chosen(fresh_choice, monkeypatch):
    real = load_runtime().interpreter

    class Broken(real):
        def get_tensor(self, index):
            return super().get_tensor(index) + np.int8(1)

    interpreter._load_runtime.cache_clear()
    broken = types.SimpleNamespace(Interpreter=Broken)
    monkeypatch.setattr(interpreter, "import_module", lambda _: broken)
    with pytest.raises(RuntimeUnavailable, match="wrong results"):
        load_runtime()


def test_native_announcements_do_not_reach_the_user():
    script = (
        "from edgemask.runtime import load_runtime; import sys; load_runtime();"
        "print('mine', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "mine\n")


def test_other_lines_on_stderr_are_passed_on(capfd):
    printed = []
    with interpreter._quiet_stderr(printed):
        os.write(2, b"INFO: Created a delegate\nERROR: a real one\n")
    assert capfd.readouterr().err == "ERROR: a real one\n"
    assert printed == []


def test_lines_before_a_failure_are_kept_for_the_traceback(fresh_choice, monkeypatch, capfd):
    def missing(module):
        os.write(2, f"advice on {module}\n".encode())
        raise ImportError("no")

    monkeypatch.setattr(interpreter, "import_module", missing)
    with pytest.raises(RuntimeUnavailable) as caught:
        load_runtime()
    assert capfd.readouterr().err == ""
    (note,) = caught.value.__notes__
    assert "advice on ai_edge_litert.interpreter\nadvice on tflite_runtime" in note


def test_a_full_disk_is_no_reason_to_run_nothing(fresh_choice, monkeypatch):
    def no_room(*_):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(interpreter.tempfile, "TemporaryFile", no_room)
    assert load_runtime().name in ("ai-edge-litert", "tflite-runtime")


def test_closed_stderr_is_no_problem():
    script = "import os; os.close(2); from edgemask.runtime import load_runtime; load_runtime()"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
