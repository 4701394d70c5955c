"""install.sh on systems that are folders, without doing anything; test_systemd.py does it for real.

Commands the script asks (df) are replaced by scripts in a folder at the front of PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest
from boards import PI_3, PI_5, ZERO_2_W, make_board, write

from edgemask.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FIRMWARE = ROOT / "firmware"
SCRIPT = FIRMWARE / "install.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def install(
    *arguments: str | Path, df: str | None = None, tmp: Path | None = None
) -> tuple[int, str]:
    """Run the script as a user without rights, and return its status and all it printed."""
    environment = dict(os.environ)
    if df is not None:
        assert tmp is not None
        write(tmp, {"bin/df": f"#!/bin/sh\necho header\necho {df}\n"})
        (tmp / "bin/df").chmod(0o755)
        environment["PATH"] = f"{tmp / 'bin'}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", SCRIPT, *arguments], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_the_scripts_are_valid_bash() -> None:
    for script in (SCRIPT, Path(__file__).with_name("guest.sh")):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck() -> None:
    for script in (SCRIPT, Path(__file__).with_name("guest.sh"), ROOT / ".ci/legs/systemd"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_help_names_every_option() -> None:
    status, text = install("--help")
    assert status == 0
    options = set(re.findall(r"^ {12}(--[\w-]+).*\)", SCRIPT.read_text(), re.MULTILINE))
    assert options >= {"--uninstall", "--purge", "--dry-run", "--no-start"}
    for option in options | {"--from", "--extras", "--root"}:
        assert option in text, option


@pytest.mark.parametrize("codename", ["bookworm", "trixie"])
@pytest.mark.parametrize("model", [ZERO_2_W, PI_5])
def test_dry_run(tmp_path: Path, model: str, codename: str) -> None:
    status, text = install("--root", make_board(tmp_path, model, codename))
    assert status == 0, text
    assert f"board:   {model}" in text
    assert "apt-get install -qy --no-install-recommends python3-venv python3-numpy" in text
    assert "python3-picamera2" in text
    assert "/usr/bin/python3 -m venv --clear --system-site-packages /opt/edgemask/venv" in text
    assert f"pip wheel --quiet --no-deps --wheel-dir /tmp/edgemask-install/wheels {ROOT}\n" in text
    wheel = "/tmp/edgemask-install/wheels/edgemask-VERSION.whl"
    assert f"--constraint {FIRMWARE}/constraints-{codename}.txt '{wheel}[mqtt]'\n" in text
    assert f"install -m 0644 {wheel} /opt/edgemask/share\n" in text
    assert "usermod --append --groups video,render edgemask" in text
    # The order matters: what is proved must have been installed, and is proved before it starts.
    steps = re.findall(r"^== (.*)$", text, re.MULTILINE)
    assert [step.split()[0] for step in steps] == [
        "packages", "account", "edgemask", "settings", "test", "service",
    ]  # fmt: skip
    assert text.index("import picamera2") < text.index("edgemask demo")
    assert "systemctl enable --quiet edgemask@camera" in text


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    install("--root", root)
    install("--root", root, "--uninstall", "--purge")
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_version_from_an_index(tmp_path: Path) -> None:
    status, text = install("--root", make_board(tmp_path), "--from", "edgemask==1.0")
    assert status == 0
    assert "/tmp/edgemask-install/wheels edgemask==1.0\n" in text
    assert "==1.0[" not in text  # extras stand before a version


def test_the_copy_that_is_kept_installs_the_wheel_beside_it(tmp_path: Path) -> None:
    """It must never ask an index for whatever has this name there."""
    share = shutil.copytree(FIRMWARE, tmp_path / "share")
    root = make_board(tmp_path / "root")

    def again() -> subprocess.CompletedProcess[str]:
        command = ["bash", share / "install.sh", "--root", root]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    done = again()
    assert done.returncode == 1
    assert "neither a source folder nor a wheel beside this script" in done.stderr
    assert "==" not in done.stdout  # no step was begun
    (share / "edgemask-1.0-py3-none-any.whl").touch()
    done = again()
    assert done.returncode == 0, done.stderr
    assert f"/wheels {share}/edgemask-1.0-py3-none-any.whl\n" in done.stdout


def test_existing_settings_are_kept(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    assert "/etc/edgemask/camera.toml is left unchanged" in install("--root", root)[1]
    text = install("--root", root, "door")[1]
    assert "assets/edgemask.toml /etc/edgemask/door.toml" in text
    assert "systemctl enable --quiet edgemask@door" in text


def test_again_without_a_name_is_for_the_services_that_there_are(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    (root / "etc/edgemask/camera.toml").unlink()
    write(root, {
        "etc/edgemask/door.toml": "", "etc/edgemask/garden.toml": "", "etc/edgemask/off.toml": "",
        "opt/edgemask/share/extras": "mqtt,video\n",
    })  # fmt: skip
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for path in wants.glob("edgemask@*"):
        path.unlink()
    text = install("--root", root)[1]  # none starts at boot: all of which there are settings
    assert re.findall(r"enable --quiet edgemask@(\w+)", text) == ["door", "garden", "off"]
    write(root, {f"{wants.relative_to(root)}/edgemask@{n}.service": "" for n in ("door", "garden")})
    status, text = install("--root", root)
    assert status == 0
    assert re.findall(r"enable --quiet edgemask@(\w+)", text) == ["door", "garden"]
    assert "camera.toml" not in text
    assert "edgemask-VERSION.whl[mqtt,video]" in text
    assert "edgemask-VERSION.whl[mqtt]" in install("--root", root, "--extras", "mqtt")[1]


@pytest.mark.parametrize(
    ("model", "codename", "gives"),
    [(PI_3, "bookworm", "tflite-runtime 2.14"), (ZERO_2_W, "trixie", "no TFLite runtime")],
)
def test_32_bit_is_refused_with_what_it_could_give(
    tmp_path: Path, model: str, codename: str, gives: str
) -> None:
    status, text = install("--root", make_board(tmp_path, model, codename, bits=32))
    assert status == 1
    assert gives in text
    assert text.splitlines()[-1].startswith("install.sh: error: write the 64-bit Raspberry Pi OS")
    assert "==" not in text.replace("edgemask==", "")  # no step was begun


@pytest.mark.parametrize(
    ("model", "capable"),
    [
        ("Zero W Rev 1.1", False), ("Zero Rev 1.3", False), ("Model A Plus Rev 1.1", False),
        ("Model B Rev 2", False), ("Compute Module Rev 1.0", False), ("2 Model B Rev 1.1", False),
        ("2 Model B Rev 1.2", True), ("3 Model A Plus Rev 1.0", True), ("Zero 2 W Rev 1.0", True),
        ("Compute Module 4 Rev 1.0", True),
    ],
)  # fmt: skip
def test_a_board_that_has_no_64_bit_is_told_so(tmp_path: Path, model: str, capable: bool) -> None:
    root = make_board(tmp_path, PI_3, "bookworm", bits=32)
    write(root, {"proc/device-tree/model": f"Raspberry Pi {model}\0"})
    status, text = install("--root", root)
    assert (status, "no 64-bit processor" in text) == (1, not capable)


def test_old_release_is_refused(tmp_path: Path) -> None:
    status, text = install("--root", make_board(tmp_path, PI_5, "bullseye"))
    assert status == 1
    assert "Python older than 3.11" in text


def test_a_full_card_is_refused(tmp_path: Path) -> None:
    root = make_board(tmp_path / "root")
    shutil.rmtree(root / "opt")
    full = "/dev/root 7000000 6600000 400000 94% /"
    status, text = install("--root", root, df=full, tmp=tmp_path)
    assert status == 1
    assert "only 390 MB are free" in text
    inodes = "/dev/root 900000 899000 1000 99% /"
    status, text = install("--root", root, df=inodes.replace("1000 99", "9000000 99"), tmp=tmp_path)
    assert status == 0, text


def test_an_unknown_release_gets_no_constraints(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    write(root, {"etc/os-release": 'PRETTY_NAME="Ubuntu 24.04"\nVERSION_CODENAME=noble\n'})
    status, text = install("--root", root)
    assert status == 0
    assert "--constraint" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--color"], "unknown option --color"),
        (["--from"], "--from needs a value"),
        (["--purge", "--dry-run"], "--purge needs --uninstall"),
        (["--dry-run", "a/b"], "choose another"),
        (["--root", "/none"], "no folder /none"),
        (["--dry-run", "door", "garden"], "one NAME at a time, not door and garden"),
        (["--dry-run", "--uninstall", "door"], "sudo systemctl disable --now edgemask@door"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    status, text = install(*arguments)
    assert status == 1
    assert text.startswith("install.sh: error: ")
    assert message in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_it_asks_for_root() -> None:
    status, text = install()
    assert (status, "must be run as root: sudo" in text) == (1, True)


def test_uninstall_keeps_the_settings_unless_told(tmp_path: Path) -> None:
    root = make_board(tmp_path)
    status, text = install("--root", root, "--uninstall")
    assert status == 0
    assert "rm -rf /opt/edgemask /var/lib/edgemask /run/edgemask" in text
    assert "userdel edgemask" in text
    assert "rm -rf /etc/edgemask" not in text
    assert "rm -rf /etc/edgemask\n" in install("--root", root, "--uninstall", "--purge")[1]


@pytest.mark.parametrize(
    ("entry", "goes"),
    [
        ("edgemask:x:998:998:edgemask:/var/lib/edgemask:/usr/sbin/nologin", True),
        ("edgemask:x:1000:1000::/home/edgemask:/bin/bash", False),
        ("edgemask2:x:1000:1000::/home/edgemask2:/bin/bash", True),
    ],
)
def test_uninstall_keeps_an_account_of_somebody_with_this_name(
    tmp_path: Path, entry: str, goes: bool
) -> None:
    root = make_board(tmp_path)
    write(root, {"etc/passwd": f"root:x:0:0:root:/root:/bin/bash\n{entry}\n"})
    status, text = install("--root", root, "--uninstall")
    assert status == 0
    assert ("userdel edgemask" in text) == goes
    assert ("the user edgemask was there before and stays" in text) != goes


def test_constraints_agree_with_what_edgemask_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (numpy,) = [entry for entry in project["dependencies"] if entry.startswith("numpy")]
    assert numpy == "numpy>=1.24.2"  # what Bookworm has
    lines = (FIRMWARE / "constraints-bookworm.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["numpy<2"]


def test_settings_of_the_cloud_init_example(tmp_path: Path) -> None:
    text = (FIRMWARE / "cloud-init/user-data").read_text("utf-8")
    assert text.startswith("#cloud-config\n")
    block = r"path: /etc/edgemask/door\.toml\n.*?content: \|\n((?: {6}[^\n]*\n|\n)+)"
    found = re.search(block, text, re.DOTALL)
    assert found
    write(tmp_path, {"door.toml": textwrap.dedent(found[1])})
    settings = load_settings(tmp_path / "door.toml")
    assert settings.source.uri.startswith("camera:0")
    assert settings.serve.host == "0.0.0.0"
    (command,) = re.findall(r"- bash \S+/install\.sh (.*)", text)
    assert "--from" in command
    assert command.endswith(" door")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists, as an instance."""
    text = (FIRMWARE / "edgemask@.service").read_text("utf-8")
    path = tmp_path / "edgemask@camera.service"
    path.write_text(text.replace("/opt/edgemask/venv/bin/edgemask serve", "/bin/true serve"))
    return path


analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@analyze
def test_unit_is_valid(unit: Path) -> None:
    # It ends with 0 on unknown keys and bad values, and only prints them.
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@analyze
def test_unit_is_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_unit_fits_a_board_with_512_mb() -> None:
    text = (FIRMWARE / "edgemask@.service").read_text("utf-8")
    limits = dict(re.findall(r"^Memory(High|Max)=(\d+)M$", text, re.MULTILINE))
    assert 0 < int(limits["High"]) < int(limits["Max"]) <= 320
    for device in ("char-video4linux", "char-media", "char-dma_heap"):
        assert f"DeviceAllow={device} rw" in text
    assert "User=edgemask" in text
    assert "PrivateDevices=yes" not in text  # would hide the camera
