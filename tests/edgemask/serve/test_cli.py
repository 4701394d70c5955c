"""``edgemask serve`` from the command line."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_fakes import until

import edgemask
from edgemask.cli import common, main
from edgemask.modelpack import bundled_packs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run serve in a thread until the test ends; return the address it printed."""
    stopped = threading.Event()
    threads: list[threading.Thread] = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    class Signals:
        """Signals reach the main thread only, which the test itself needs."""

        def __enter__(self) -> threading.Event:
            return stopped

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("edgemask.live.service.stop_signals", Signals)

    def start(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        thread = threading.Thread(target=main, args=(["serve", "--port", "0", *arguments],))
        threads.append(thread)
        thread.start()
        printed = until(lambda: capsys.readouterr().out, 10)
        return str(re.search(r"http://\S+", printed)[0])  # type: ignore[index]

    yield start
    stopped.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def get(url: str, path: str) -> tuple[int, bytes]:
    place, _, query = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(place, timeout=5)
    connection.request("GET", path + query)
    response = connection.getresponse()
    return response.status, response.read()


def post(url: str, body: Any) -> tuple[int, bytes]:
    place = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(place, timeout=5)
    connection.request(
        "POST", "/settings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    return response.status, response.read()


SOURCE = "synthetic:?people=1&size=64x48&fps=20&live=1"


@pytest.mark.usefixtures("fake_segmenter")
def test_options_win_over_the_configuration(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "door.toml"
    config.write_text(
        f'[source]\nuri = "{SOURCE}"\n[model]\nscore = 0.3\n[pace]\nmax_fps = 7.0\nmax_temp = 70\n'
    )
    url = running(capsys, "--config", str(config), "--score", "0.8")
    status = json.loads(get(url, "/status")[1])
    assert status["settings"]["score_threshold"] == 0.8
    assert status["settings"]["max_fps"] == 7
    assert status["governor"]["max_temp"] == 70
    assert status["source"]["name"].startswith("synthetic:")
    until(lambda: json.loads(get(url, "/status")[1])["frames"])


@pytest.mark.usefixtures("fake_segmenter")
def test_the_network_needs_a_token_which_is_shown_once(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = running(capsys, SOURCE, "--host", "0.0.0.0")
    token = (tmp_path / "state/edgemask/token").read_text().strip()
    assert url.endswith(f"/?token={token}")
    port = re.search(r":(\d+)/", url)[1]  # type: ignore[index]
    assert get(f"http://127.0.0.1:{port}/?token={token}", "/status")[0] == 200
    assert get(f"http://127.0.0.1:{port}/", "/status")[0] == 401
    again = running(capsys, SOURCE, "--host", "0.0.0.0")
    assert "token" not in again


@pytest.mark.usefixtures("fake_segmenter")
def test_a_token_file_means_a_token(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = running(capsys, SOURCE, "--token-file", str(tmp_path / "key"))
    assert (tmp_path / "key").exists()
    assert get(url, "/status?")[0] == 401
    assert "token=" in url


def test_bundled_models_and_the_given_one_can_be_chosen(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert", reason="no TFLite runtime")
    shutil.copy(Path(edgemask.__file__).parent / "models" / "people.zip", tmp_path / "garden.zip")
    zone = tmp_path / "zone.toml"
    zone.write_text("[mqtt]\nclasses = ['person']\n")
    url = running(
        capsys, SOURCE, "--model", str(tmp_path / "garden.zip"), "--short-side", "160",
        "--threads", "1", "--max-fps", "5", "--config", str(zone),
    )  # fmt: skip

    def model() -> Any:
        return json.loads(get(url, "/status")[1])["model"]

    assert model()["choice"] == "garden.zip"
    choices = json.loads(get(url, "/status")[1])["limits"]["model"]["choices"]
    assert choices == sorted([*bundled_packs(), "garden.zip"])
    assert str(tmp_path) not in get(url, "/status")[1].decode()
    assert post(url, {"model": str(tmp_path / "garden.zip")})[0] == 400
    assert post(url, {"model": "people"})[0] == 200
    until(lambda: model()["choice"] == "people", 60)
    # The file is read when it is chosen: one that has gone meanwhile changes nothing.
    (tmp_path / "garden.zip").unlink()
    assert post(url, {"model": "garden.zip"})[0] == 200
    until(lambda: "cannot be read" in (model()["error"] or ""), 60)
    assert model()["choice"] == "people"
    said = until(lambda: capsys.readouterr().err, 10)
    assert re.fullmatch(r"edgemask: warning: the model garden.zip was not taken, [^\n]*\n", said)


@pytest.mark.usefixtures("fake_segmenter")
def test_a_model_without_a_class_of_the_configuration_is_not_taken(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """As at the start, where it would be an error."""
    make = common.make_segmenters

    def other(options: Any, *rest: Any) -> Any:
        asked, options.model = options.model, "people"
        segmenters = make(options, *rest)
        if asked == "dogs":
            segmenters[0].pack = SimpleNamespace(
                name="dogs", version="1", sha256="1" * 64, class_names={18: "dog"}
            )
        return segmenters

    monkeypatch.setattr(common, "make_segmenters", other)
    monkeypatch.setattr("edgemask.modelpack.bundled_packs", lambda: ["dogs", "people"])
    config = tmp_path / "zone.toml"
    config.write_text("[mqtt]\nclasses = ['person']\n")
    url = running(capsys, SOURCE, "--config", str(config))
    assert post(url, {"model": "dogs"})[0] == 200

    def error() -> Any:
        return json.loads(get(url, "/status")[1])["model"]["error"]

    message = until(error)
    assert message.startswith("the model dogs was not taken, people stays in use: mqtt.classes: ")
    assert "no class 'person'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4"),
        (["camera:x"], "camera:x"),
        (["--port", "99999"], "'99999' is not a port from 0 to 65535"),
        (["--max-fps", "0"], "'0' is not a number from 0.01 to 1000"),
        (["--max-temp", "hot"], "'hot' is not a number from 30 to 110"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--host", "999.0.0.1", "--token-file", "key"], "cannot listen on 999.0.0.1"),
    ],
)
@pytest.mark.usefixtures("fake_segmenter")
def test_mistakes(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    port = [] if "--port" in arguments else ["--port", "0"]
    assert main(["serve", *arguments, *port]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"edgemask: error: [^\n]*\n", error)
    assert message in error
    until(lambda: threading.active_count() <= threads)


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert "edgemask serve camera:0" in capsys.readouterr().out


def test_the_service_with_the_real_model(tmp_path: Path) -> None:
    """As systemd runs it: it says when it is ready, feeds the watchdog, and stops when told to."""
    pytest.importorskip("ai_edge_litert", reason="no TFLite runtime")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "30000000",
            "STATE_DIRECTORY": str(tmp_path / "state"),
        }
        environment.pop("WATCHDOG_PID", None)
        source = "synthetic:?people=2&size=320x240&live=1&fps=10"
        command = [sys.executable, "-m", "edgemask", "serve", source]
        with subprocess.Popen(
            [*command, "--port", "0", "--max-fps", "5", "--short-side", "160"],
            cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                received: set[str] = set()
                while not {"READY=1", "WATCHDOG=1"} <= received:
                    received.add(manager.recv(1000).decode())
                assert process.stdout
                url = str(re.search(r"http://\S+", process.stdout.readline())[0])  # type: ignore[index]
                until(lambda: get(url, "/healthz")[0] == 200, 30)
                status, picture = get(url, "/snapshot.jpg")
                assert (status, picture[:2]) == (200, b"\xff\xd8")
                process.send_signal(signal.SIGTERM)
                start = time.monotonic()
                assert process.wait(20) == 0
                assert time.monotonic() - start < 5
            finally:
                process.kill()
            assert process.stderr
            assert process.stderr.read() == ""
        while "STOPPING=1" not in received:
            received.add(manager.recv(1000).decode())
