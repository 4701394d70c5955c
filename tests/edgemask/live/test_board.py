"""Boards made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgemask.live.board import Throttled, read_board

CPU = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_pi_4(tmp_path: Path) -> None:
    board = read_board(
        write(
            tmp_path,
            {
                "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
                "proc/meminfo": "MemTotal:  3884360 kB\nMemFree: 1 kB\nMemAvailable: 3000000 kB\n",
                "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
                "sys/class/thermal/thermal_zone0/temp": "48312\n",
                "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
                f"{CPU}/present": "0-3\n",
                f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
                f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
            },
        )
    )
    assert board.model == "Raspberry Pi 4 Model B Rev 1.5"
    assert board.temperature_c == pytest.approx(48.312)
    assert board.throttled is not None
    assert board.throttled.now == ("under-voltage", "throttled")
    assert board.throttled.since_boot == ("under-voltage", "throttled")
    assert (board.memory_total, board.memory_available) == (3884360 * 1024, 3000000 * 1024)
    assert (board.cpu_count, board.cpu_governor, board.cpu_mhz) == (4, "ondemand", 1800.0)


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    board = read_board(tmp_path)
    assert board.cpu_count >= 1
    assert board.model is board.temperature_c is board.throttled is board.memory_total is None
    assert board.memory_available is board.cpu_governor is board.cpu_mhz is None


def test_nonsense_is_unknown_and_not_an_error(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/device-tree/model": "\0",
            "proc/meminfo": "garbage",
            "sys/class/thermal/thermal_zone0/temp": "hot",
            "sys/class/thermal/thermal_zone1/temp": "-274000",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "error",
            f"{CPU}/present": "all",
        },
    )
    board = read_board(tmp_path)
    assert board.model is board.temperature_c is board.throttled is board.memory_total is None


def test_the_cpu_and_not_its_neighbours_is_measured(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    files = {f"{zones}0/type": "rp1_adc", f"{zones}0/temp": "90000"}
    assert read_board(write(tmp_path, files)).temperature_c == 90  # better than nothing
    write(tmp_path, {f"{zones}1/type": "cpu-thermal", f"{zones}1/temp": "51000"})
    assert read_board(tmp_path).temperature_c == 51


@pytest.mark.parametrize(
    ("answer", "bits"),
    [("throttled=0x50000", 0x50000), ("throttled=0x0", 0), ("VCHI failed", None)],
)
def test_vcgencmd_is_asked_where_the_kernel_has_no_file(
    tmp_path: Path, answer: str, bits: int | None
) -> None:
    script = f'#!/bin/sh\n[ "$1" = get_throttled ] && echo "{answer}"\n'
    program = write(tmp_path, {"usr/bin/vcgencmd": script}) / "usr/bin/vcgencmd"
    os.chmod(program, 0o755)
    assert read_board(tmp_path).throttled == (None if bits is None else Throttled(bits))


def test_a_vcgencmd_that_fails_is_unknown(tmp_path: Path) -> None:
    program = write(tmp_path, {"usr/bin/vcgencmd": "#!/bin/sh\nexit 1\n"}) / "usr/bin/vcgencmd"
    os.chmod(program, 0o755)
    assert read_board(tmp_path).throttled is None


def test_model_of_the_cpu_where_there_is_no_device_tree(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU @ 3 GHz\nflags: a\n"})
    assert read_board(tmp_path).model == "Some CPU @ 3 GHz"
    write(tmp_path, {"proc/cpuinfo": "processor : 0\nModel\t\t: Raspberry Pi Zero 2 W Rev 1.0\n"})
    assert read_board(tmp_path).model == "Raspberry Pi Zero 2 W Rev 1.0"


@pytest.mark.parametrize(("present", "count"), [("0-3", 4), ("0", 1), ("0-1,4-5", 4)])
def test_cpus_of_the_board(tmp_path: Path, present: str, count: int) -> None:
    assert read_board(write(tmp_path, {f"{CPU}/present": present})).cpu_count == count


def test_flags() -> None:
    assert Throttled(0).now == Throttled(0).since_boot == ()
    assert Throttled(0b1000).now == ("soft temperature limit",)
    assert Throttled(0b1000).hot
    assert Throttled(0b0100).hot
    assert not Throttled(0b0011).hot  # a weak power supply is not mended by doing less
    assert not Throttled(0xF0000).hot
    assert Throttled(1 << 17).since_boot == ("frequency capped",)


def test_this_machine_has_a_cpu() -> None:
    assert read_board().cpu_count >= 1
