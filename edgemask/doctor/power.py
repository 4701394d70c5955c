"""Heat and power: what the firmware slows the board down for."""

from __future__ import annotations

from edgemask.doctor.host import Finding, Host, note, ok, problem

__all__ = ["check_power", "check_temperature"]

_HOT_C = 80.0  # where the firmware of a Pi begins to slow the CPU down
_SUPPLY = {
    "Raspberry Pi 5": "5 V 5 A",
    "Raspberry Pi 4": "5 V 3 A",
    "Raspberry Pi 3": "5 V 2.5 A",
    "Raspberry Pi Zero 2": "5 V 2.5 A",
}


def check_temperature(host: Host) -> Finding:
    """Tell the CPU's temperature."""
    celsius = host.board.temperature_c
    if celsius is None:
        return note("heat", "the system does not report its temperature")
    if celsius >= _HOT_C:
        return problem(
            "heat",
            f"{celsius:.0f} °C: the firmware slows the CPU down from {_HOT_C:.0f} °C",
            "add a heat sink or fan, or set max_temp = 75.0 under [pace] in the service's settings",
        )
    return ok("heat", f"{celsius:.0f} °C")


def check_power(host: Host) -> Finding:
    """Tell under-voltage and throttling, now and since the board was started."""
    board = host.board
    if board.throttled is None:
        return note("power", "not known: only the firmware of a Raspberry Pi reports it")
    now, before = board.throttled.now, board.throttled.since_boot
    supply = next((v for k, v in _SUPPLY.items() if (board.model or "").startswith(k)), "")
    air = "add a heat sink or fan, and leave air around the board"
    made = f"the power supply made for this board{f' ({supply})' if supply else ''}"
    volts = f"use {made}, with a short cable"
    if "under-voltage" in now:
        return problem("power", f"now: {', '.join(now)}", volts)
    if now:
        return problem("power", f"now: {', '.join(now)}", air)
    if "under-voltage" in before:
        return problem("power", f"since boot: {', '.join(before)}", volts)
    if before:
        return note("power", f"since boot: {', '.join(before)}", air)
    return ok("power", "no under-voltage or throttling since boot")
