"""The service: its unit, its settings and its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from edgemask.doctor.host import Finding, Host, note, ok, problem
from edgemask.errors import EdgeMaskError
from edgemask.settings import Settings, load_settings

__all__ = ["check_service", "instances", "uses_camera"]

_SETTINGS = "etc/edgemask"
_UNIT = "etc/systemd/system/edgemask@.service"
_KEYS = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts")


def instances(host: Host) -> list[str]:
    """Return the names of the service's instances: those that have settings."""
    return [path.stem for path in host.glob(f"{_SETTINGS}/*.toml")]


def _settings(host: Host, name: str) -> Settings:
    with _variables_of_systemd(name):
        return load_settings(host.path(f"{_SETTINGS}/{name}.toml"))


@contextlib.contextmanager
def _variables_of_systemd(name: str) -> Iterator[None]:
    """Set the variables that settings may use and that only the service itself has."""
    given = {
        "STATE_DIRECTORY": f"/var/lib/edgemask/{name}",
        "RUNTIME_DIRECTORY": f"/run/edgemask/{name}",
        "CREDENTIALS_DIRECTORY": f"/run/credentials/edgemask@{name}.service",
    }
    before = {key: os.environ.get(key) for key in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def uses_camera(host: Host) -> bool:
    """Whether any instance reads a camera of this board; also if there is none that says."""
    sources = []
    for name in instances(host):
        try:
            sources.append(_settings(host, name).source.uri)
        except (EdgeMaskError, OSError):  # reported by check_service
            return True
    return not sources or any(
        uri.lower().startswith(("camera:", "v4l2:", "/dev/video", "/dev/v4l/")) for uri in sources
    )


def check_service(host: Host) -> list[Finding]:
    """Tell for every instance whether its settings are valid and it runs."""
    if not host.path(_UNIT).is_file():
        return [note("service", "not installed", "sudo firmware/install.sh")]
    folder = host.path(_SETTINGS)
    names = instances(host)
    if not names:
        try:
            list(folder.iterdir())
        except PermissionError:
            return [note("service", f"this user may not read /{_SETTINGS}", "sudo edgemask doctor")]
        except OSError:
            pass
        return [problem("service", f"installed, but there are no settings in /{_SETTINGS}",
                        "sudo /opt/edgemask/share/install.sh")]  # fmt: skip
    return [_check_instance(host, name) for name in names]


def _check_instance(host: Host, name: str) -> Finding:
    unit = f"edgemask@{name}"
    check = f"service {name}"
    try:
        _settings(host, name)
    except (EdgeMaskError, OSError) as error:
        text = str(error).replace(str(host.root).rstrip("/") + "/", "/")
        return problem(check, text, f"sudoedit /{_SETTINGS}/{name}.toml, then "
                                    f"sudo systemctl restart {unit}")  # fmt: skip
    link = host.path(f"etc/systemd/system/multi-user.target.wants/{unit}.service")
    enabled = link.is_symlink() or link.exists()
    if not host.live:
        return ok(check, f"settings are valid; starts {'at boot' if enabled else 'by hand only'}")
    answer = host.run(["systemctl", "show", f"{unit}.service", "--property", ",".join(_KEYS)], 10.0)
    if answer is None or answer.status != 0:
        return note(check, "settings are valid; systemd does not run here")
    state = dict(line.partition("=")[::2] for line in answer.output.splitlines())
    return _judge(check, unit, enabled, state)


def _judge(check: str, unit: str, enabled: bool, state: dict[str, str]) -> Finding:
    """Turn what systemd says into a finding."""
    restarts = int(state.get("NRestarts") or 0)
    often = f"; restarted {restarts} times so far" if restarts else ""
    look = f"journalctl -u {unit} -n 50 --no-pager  (says why)"
    active = state.get("ActiveState", "")
    if active == "failed":
        return problem(
            check, f"failed ({state.get('Result', '?')}){often}",
            f"{look}; then sudo systemctl reset-failed {unit} && sudo systemctl start {unit}",
        )  # fmt: skip
    if active == "activating" and restarts:
        return problem(check, f"keeps failing{often}", look)
    if active in ("active", "activating", "reloading"):
        return ok(check, f"{active} ({state.get('SubState', '?')}){often}")
    if enabled:
        return problem(check, "enabled, but not running", f"sudo systemctl start {unit}")
    return note(check, "neither running nor enabled", f"sudo systemctl enable --now {unit}")
