"""Python, NumPy and the runtime: what one package did to another, and whether int8 is fast."""

from __future__ import annotations

import json
import platform
import re
import signal
import sys
from pathlib import Path
from typing import Any

from edgemask.doctor.host import Finding, Host, note, ok, problem

__all__ = [
    "SERVICE_VENV",
    "ask",
    "check_model",
    "check_numpy",
    "check_python",
    "check_runtime",
    "environment",
    "installed",
    "sees_system_packages",
]

SERVICE_VENV = "opt/edgemask/venv"
_APT = "usr/lib/python3/dist-packages"
_SECONDS = 120.0  # a Zero 2 W reads NumPy and the networks from a slow card


def _again(host: Host) -> str:
    """The command that makes the service's environment anew."""
    kept = "opt/edgemask/share/install.sh"
    if host.path(kept).is_file():
        return f"sudo /{kept}  (rebuilds the environment)"
    return "sudo firmware/install.sh"


def ask(host: Host, name: str) -> dict[str, Any]:
    """Run a probe in a process of its own; ``{"error": …}`` if it fails in any way."""
    answer = host.run([sys.executable, "-m", "edgemask.doctor.probe", name], _SECONDS)
    if answer is None:
        return {"error": f"no answer within {_SECONDS:.0f} s", "kind": "timeout"}
    if answer.status < 0:
        ended = signal.Signals(-answer.status).name
        return {"error": f"the process was ended by {ended}", "kind": ended}
    try:
        result: dict[str, Any] = json.loads(answer.output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (answer.errors.strip().splitlines() or ["nothing was printed"])[-1]
        return {"error": last, "kind": "crash"}
    return result


def environment(host: Host) -> Path | None:
    """Return the folder of the environment that is examined.

    On the running system that is the one of this Python, elsewhere the service's.
    """
    if host.live and host.root == Path("/"):
        return Path(sys.prefix) if sys.prefix != sys.base_prefix else None
    folder = host.path(SERVICE_VENV)
    return folder if folder.is_dir() else None


def installed(folders: list[Path], name: str) -> str | None:
    """Return the version of a distribution in the first of the folders that has it."""
    pattern = re.compile(rf"{name}-([^-]+)(-.*)?\.(dist|egg)-info", re.IGNORECASE)
    for folder in folders:
        try:
            entries = sorted(entry.name for entry in folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            found = pattern.fullmatch(entry)
            if found:
                return found[1]
    return None


def sees_system_packages(venv: Path) -> bool:
    """Whether an environment sees apt's packages."""
    try:
        text = (venv / "pyvenv.cfg").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(re.search(r"^include-system-site-packages\s*=\s*true\s*$", text, re.MULTILINE))


def _site_packages(venv: Path) -> list[Path]:
    return sorted(venv.glob("lib/python3*/site-packages"))


def check_python(host: Host) -> Finding:
    """Tell the Python, and whether the environment still belongs to the system's."""
    venv = environment(host)
    where = f" in {_shown(host, venv)}" if venv else ""
    if host.live and host.root == Path("/"):
        return ok("python", f"{platform.python_version()}{where}")
    if venv is None:
        return note("python", f"no environment in /{SERVICE_VENV}")
    made = {folder.parent.name for folder in _site_packages(venv)}
    there = {folder.name for folder in host.glob("usr/lib/python3.[0-9]*")}
    if made and there and not made & there:
        return problem(
            "python",
            f"{_shown(host, venv)} was made with {', '.join(sorted(made))}, but the system now has "
            f"{', '.join(sorted(there))}",
            _again(host),
        )
    return ok("python", f"{', '.join(sorted(made)) or 'an empty environment'}{where}")


def _shown(host: Host, path: Path) -> str:
    """Return a path as it is called on the system."""
    return str(path) if host.root == Path("/") else f"/{path.relative_to(host.root)}"


def check_numpy(host: Host) -> Finding:
    """Tell NumPy's version, and whether apt's and pip's binaries were compiled for it.

    apt's simplejpeg, which picamera2 imports, is compiled against apt's NumPy. Compiled against
    NumPy 1, it does not load beside NumPy 2; the reverse works.
    """
    venv = environment(host)
    own = _site_packages(venv) if venv else []
    apt = host.path(_APT)
    theirs = installed([apt], "numpy")
    mine = installed(own, "numpy")
    seen = venv is not None and sees_system_packages(venv)
    used = mine or (theirs if venv is None or seen else None)
    pip = f"{_shown(host, venv)}/bin/pip" if venv else "pip"
    if host.live and used is None:
        loaded = ask(host, "numpy")
        used = loaded.get("version")
        if used is None:
            return problem("numpy", f"does not load: {loaded['error']}", f"{pip} install numpy")
    if used is None:
        return note("numpy", "not installed in the environment of the service")
    if _major(used) >= 2:
        hidden = theirs is not None and _major(theirs) < 2 and (venv is None or seen)
        if hidden and installed([apt], "simplejpeg") and not installed(own, "simplejpeg"):
            return problem(
                "numpy",
                f"{used} hides apt's {theirs}, which apt's simplejpeg needs: import picamera2 "
                "fails with 'numpy.dtype size changed'",
                f"sudo {pip} install 'numpy<2'",
            )
        if installed(own, "tflite.runtime") and not installed(own, "ai.edge.litert"):
            return problem(
                "numpy",
                f"{used}, but tflite-runtime was compiled for NumPy 1",
                f"sudo {pip} install ai-edge-litert",
            )
    return ok("numpy", used + ("" if mine else " from apt" if theirs else ""))


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def check_runtime(host: Host) -> Finding:
    """Tell which runtime works, and whether it gives int8 networks to XNNPACK."""
    venv = environment(host)
    if not host.live:
        own = _site_packages(venv) if venv else []
        version = installed(own, "ai.edge.litert")
        if version:
            return note("runtime", f"ai-edge-litert {version} is installed, but was not run")
        return problem("runtime", "ai-edge-litert is not installed", _again(host))
    found = ask(host, "runtime")
    pip = f"{_shown(host, venv)}/bin/pip" if venv else "pip"
    if "error" in found:
        cure = f"{pip} install --force-reinstall --no-deps ai-edge-litert"
        if found.get("kind") == "SIGILL":
            return problem("runtime", "it was compiled for another processor (SIGILL)", cure)
        return problem("runtime", found["error"], cure)
    text = f"{found['name']} {found['version']}"
    if not found["int8"]:
        return problem(
            "runtime",
            f"{text} runs int8 without XNNPACK, many times slower",
            f"{pip} install ai-edge-litert",
        )
    return ok("runtime", f"{text}; XNNPACK takes int8")


def check_model(host: Host) -> Finding:
    """Load the bundled model and segment one photograph."""
    if not host.live:
        return note("model", "not tested: the system is not running")
    found = ask(host, "model")
    if "error" in found:
        return problem("model", found["error"], "edgemask demo --debug")
    text = (
        f"{found['name']}, one frame in {found['milliseconds']:.0f} ms with {found['threads']} "
        "threads"
    )
    if found["peak_mb"] is not None:
        text += f", peak memory {found['peak_mb']:.0f} MB"
    if found["left_out"]:
        stages = "; ".join(f"{stage}: {why}" for stage, why in found["left_out"].items())
        return problem("model", f"{text}; not all of it runs in XNNPACK: {stages}", _again(host))
    if found["found"] < 1:
        return problem("model", f"{text}; it found nobody in the photograph", _again(host))
    return ok("model", f"{text}; all of it in XNNPACK")
