"""The layer for rpi-image-gen: what it declares, and the system that it makes.

rpi-image-gen reads the declarations in the comments and hands the rest to bdebstrap. The tests of
the first half read them too; the second half, marked ``systemd``, gives the layer to the real
bdebstrap and boots what comes out. .ci/legs/systemd prepares what it needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYER = ROOT / "firmware/rpi-image-gen/layer/edgemask.yaml"
CONFIG = ROOT / "firmware/rpi-image-gen/config/edgemask.yaml"
SETTINGS = """\
[source]
uri = "synthetic:?people=2&size=320x240&fps=6&live=true"
"""
WAIT = """\
[Unit]
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until systemctl is-active edgemask@door; do sleep 1; done'
ExecStart=/bin/sh -c 'systemctl show edgemask@door -p User,StatusText,NRestarts > /results/state'
TimeoutStartSec=120
"""


def declarations() -> dict[str, str]:
    """Field of the metadata → value, lines that go on joined."""
    block = LAYER.read_text("utf-8").partition("# METABEGIN\n")[2].partition("# METAEND\n")[0]
    text = re.sub(r"^# ?", "", block, flags=re.MULTILINE)
    joined = re.sub(r"\n +", " ", text)
    return {k: v.strip() for k, _, v in (line.partition(":") for line in joined.split("\n")) if k}


def defaults() -> dict[str, str]:
    """Variable as the hook sees it → default."""
    found = declarations()
    prefix = found["X-Env-VarPrefix"]
    return {
        f"IGconf_{prefix}_{name[10:]}": value.replace("${DIRECTORY}", str(LAYER.parent))
        for name, value in found.items()
        if re.fullmatch(r"X-Env-Var-[a-z0-9_]+", name)
    }


def hook() -> str:
    return textwrap.dedent(LAYER.read_text("utf-8").partition("    - |-\n")[2])


def test_every_variable_is_described_and_its_default_valid() -> None:
    found = declarations()
    for variable, default in defaults().items():
        name = f"X-Env-Var-{variable.rpartition('edgemask_')[2]}"
        assert found[f"{name}-Desc"], name
        assert (found[f"{name}-Required"], found[f"{name}-Set"]) == ("n", "y"), name
        rule = found[f"{name}-Valid"]
        if rule == "bool":
            assert default in "yn", name
        elif rule.startswith("regex:"):
            assert re.search(rule.removeprefix("regex:"), default), name
        elif rule == "string":
            assert default, name
        else:
            assert rule == "string-or-empty", name


def test_the_hook_uses_what_is_declared() -> None:
    assert set(re.findall(r"\bIGconf_\w+", hook())) == set(defaults())


def test_the_installer_lies_where_the_layer_looks() -> None:
    folder = Path(defaults()["IGconf_edgemask_firmware"])
    assert (folder / "install.sh").samefile(ROOT / "firmware/install.sh")


def test_the_configuration_sets_what_is_declared() -> None:
    own = CONFIG.read_text("utf-8").partition("\nedgemask:\n")[2]
    names = re.findall(r"^ +(\w+):", own, re.MULTILINE)
    assert names
    assert {f"IGconf_edgemask_{name}" for name in names} <= set(defaults())


def run_hook(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    """The hook as mmdebstrap runs it, with a root that has nothing in it."""
    (tmp_path / "root").mkdir(exist_ok=True)
    own = {f"IGconf_edgemask_{name}": value for name, value in variables.items()}
    return subprocess.run(
        ["sh", "-c", hook(), "sh", str(tmp_path / "root")],
        env={**os.environ, **defaults(), **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("wheels", [[], ["edgemask-1.whl", "edgemask-2.whl"]])
def test_it_says_that_there_is_no_wheel_or_more_than_one(tmp_path: Path, wheels: list[str]) -> None:
    for name in wheels:
        (tmp_path / name).touch()
    done = run_hook(tmp_path, wheel=f"{tmp_path}/edgemask-*.whl")
    assert done.returncode == 1
    what = "2 wheels match" if wheels else "there is no wheel"
    assert done.stderr.startswith(f"edgemask: {what} ")
    assert done.stderr.count("\n") == 1


def test_it_says_that_there_is_no_installer(tmp_path: Path) -> None:
    (tmp_path / "edgemask-1.whl").touch()
    done = run_hook(tmp_path, wheel=f"{tmp_path}/edgemask-1.whl", firmware="/nowhere")
    assert done.returncode == 1
    assert done.stderr == "edgemask: there is no /nowhere/install.sh: set edgemask.firmware\n"


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        # SC2086, SC2154: a pattern and an option are split on purpose; bdebstrap sets IGconf_…
        ["shellcheck", "--shell=sh", "--exclude=SC2086,SC2154", "-"],
        input=hook(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root made by bdebstrap from the layer, for a camera that is drawn."""
    wheels = os.environ.get("EDGEMASK_WHEELS")
    if not wheels:
        pytest.skip("EDGEMASK_WHEELS is not set: run .ci/legs/systemd")
    if os.environ.get("EDGEMASK_RELEASE", "trixie") != "trixie":
        pytest.skip("the layer is for Trixie, and the wheels are of another release")
    if os.geteuid() != 0 or not shutil.which("bdebstrap") or not shutil.which("systemd-nspawn"):
        pytest.skip("needs root, bdebstrap and systemd-nspawn")
    folder = tmp_path_factory.mktemp("image")
    (folder / "door.toml").write_text(SETTINGS)
    variables = defaults() | {
        "IGconf_edgemask_wheel": f"{wheels}/edgemask-*.whl",
        "IGconf_edgemask_name": "door",
        "IGconf_edgemask_settings": f"{folder}/door.toml",
        "IGconf_edgemask_picamera2": "n",  # it is in Raspberry Pi's archive only
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/wheels",
    }
    command = [
        *("bdebstrap", "--config", str(LAYER), "--suite", "trixie", "--variant", "minbase"),
        *("--packages", "systemd,systemd-sysv,dbus,udev", "--dpkgopt", "force-unsafe-io"),
        *("--essential-hook", f'cp -r "{wheels}" "$1/wheels"'),
        *("--name", "edgemask", "--output", str(folder / "log")),
        *("--format", "directory", "--target", str(folder / "root")),
        *(f"--env={name}={value}" for name, value in variables.items()),
    ]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "person" in done.stdout + done.stderr, "the demo ran in the new system"
    shutil.rmtree(folder / "root/wheels")
    return folder / "root"


@pytest.mark.systemd
def test_the_image_has_the_service_and_nothing_left_over(image: Path) -> None:
    wants = image / "etc/systemd/system/multi-user.target.wants"
    assert [path.name for path in wants.glob("edgemask*")] == ["edgemask@door.service"]
    settings = image / "etc/edgemask/door.toml"
    assert settings.read_text() == SETTINGS
    assert [path.name for path in settings.parent.iterdir()] == ["door.toml"]
    group = re.search(r"^edgemask:x:(\d+):", (image / "etc/group").read_text(), re.MULTILINE)
    assert group
    assert (settings.stat().st_gid, settings.stat().st_mode & 0o777) == (int(group[1]), 0o640)
    assert list((image / "tmp").iterdir()) == []
    assert not (image / "root/.cache").exists()
    assert (image / "opt/edgemask/share/README.md").is_file()


@pytest.mark.systemd
def test_the_image_boots_into_the_service(image: Path, tmp_path: Path) -> None:
    (tmp_path / "wait.service").write_text(WAIT)
    (tmp_path / "results").mkdir()
    subprocess.run(
        [
            *("timeout", "180", "systemd-nspawn", "--register=no", "--keep-unit", "--quiet"),
            *(f"--directory={image}", "--private-network", "--boot", "--console=pipe"),
            f"--bind={tmp_path}/results:/results",
            f"--bind-ro={tmp_path}/wait.service:/etc/systemd/system/wait.service",
            *("systemd.unit=multi-user.target", "systemd.wants=wait.service"),
        ],
        env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    state = dict(
        line.partition("=")[::2] for line in (tmp_path / "results/state").read_text().splitlines()
    )
    assert (state["User"], state["NRestarts"]) == ("edgemask", "0")
    assert state["StatusText"]
