"""Examining a board: what is wrong with it, and which command mends it.

Nothing here needs NumPy or a runtime to load, because a NumPy or runtime that does not load is one
of the things to be found: they are tried in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgemask.doctor import camera, power, python, resources, service, system
from edgemask.doctor.host import Finding, Host

__all__ = ["CHECKS", "Finding", "Host", "examine"]

CHECKS: tuple[Callable[[Host], Finding | list[Finding]], ...] = (
    system.check_board,
    system.check_release,
    system.check_bits,
    system.check_clock,
    power.check_power,
    power.check_temperature,
    resources.check_memory,
    resources.check_swap,
    resources.check_limits,
    resources.check_disk,
    resources.check_writable,
    python.check_python,
    python.check_numpy,
    python.check_runtime,
    python.check_model,
    camera.check_stack,
    camera.check_config,
    camera.check_cameras,
    resources.check_camera_memory,
    camera.check_holder,
    camera.check_groups,
    service.check_service,
)


def examine(host: Host) -> Iterator[Finding]:
    """Run every check, giving each finding as soon as it is there.

    Parameters
    ----------
    host : Host
        The system.

    Yields
    ------
    Finding
    """
    for check in CHECKS:
        found = check(host)
        yield from [found] if isinstance(found, Finding) else found
