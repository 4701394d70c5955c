"""``edgemask serve``: a web page with the live overlay of a camera."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemask.cli import common
from edgemask.cli.running import add_source, running, with_options

if TYPE_CHECKING:
    from edgemask.live.engine import Engine
    from edgemask.settings import Settings
    from edgemask.sinks import Sink

HELP = "show a camera with its instances on a web page"
EXAMPLE = "edgemask serve camera:0 --host 0.0.0.0 --max-fps 10 --max-temp 75"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add_source(parser, "camera:0")
    parser.add_argument(
        "--score",
        type=common.score,
        help="lowest score of a reported instance, 0 to 1 (default: 0.5)",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host",
        help="address to listen on; 0.0.0.0 is the whole network, which needs a token (default: "
        "127.0.0.1, this machine only)",
    )
    server.add_argument("--port", type=_port, help="port to listen on (default: 8080)")
    server.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="require the token in this file, even on 127.0.0.1; created if missing (default, if "
        "one is needed: ~/.local/state/edgemask/token)",
    )
    pace = parser.add_argument_group("pace")
    pace.add_argument(
        "--max-fps",
        metavar="N",
        type=_between(0.01, 1000),
        help="maximum frames per second (default: as many as the CPU can do)",
    )
    pace.add_argument(
        "--parallel",
        metavar="N",
        type=_parallel,
        help="frames to process at the same time: 2 gives a higher rate, 1 the shortest delay "
        "(default: 2 with two threads or more and no --max-fps, else 1)",
    )
    pace.add_argument(
        "--max-temp",
        metavar="CELSIUS",
        type=_between(30, 110),
        help="slow down above this CPU temperature (default: leave it to the firmware)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file with these and more settings, such as MQTT and zones; options override it",
    )
    common.add_model_options(parser)
    parser.set_defaults(model=None)  # so that a configuration can name one


def _port(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return value


def _parallel(text: str) -> int:
    from edgemask.settings import MOST_PARALLEL

    value = common.positive_int(text)
    if value > MOST_PARALLEL:
        raise argparse.ArgumentTypeError(f"{text} frames are too many: give 1 to {MOST_PARALLEL}")
    return value


def _between(low: float, high: float) -> Any:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from edgemask.serve.server import Server

    settings = _settings(options)
    host, port = settings.serve.host, settings.serve.port
    token, first = _token(settings)
    servers: list[Server] = []
    sinks: list[Sink] = []  # made after the server, which is stopped after them

    def beside() -> dict[str, Any]:
        return {"sinks": {sink.name: sink.status() for sink in sinks}}

    def serve(engine: Engine) -> Callable[[], object]:
        servers.append(Server(engine, host=host, port=port, token=token, beside=beside))
        return servers[0].stop

    with running(settings, choice=True, beside=serve) as program:
        sinks += program.sinks
        program.start()
        servers[0].start()
        print(_greeting(host, servers[0].port, token, first), flush=True)
        program.supervise()
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """Return the configuration with the command line laid over it."""
    from edgemask.settings import Settings, load_settings

    settings = load_settings(options.config) if options.config else Settings()
    given = {
        "source": {"uri": options.source},
        "model": {
            "pack": options.model,
            "score": options.score,
            "short_side": options.short_side,
            "threads": options.threads,
            "parallel": options.parallel,
        },
        "pace": {"max_fps": options.max_fps, "max_temp": options.max_temp},
        "serve": {"host": options.host, "port": options.port, "token_file": options.token_file},
    }
    return with_options(settings, given)


def _token(settings: Settings) -> tuple[str | None, bool]:
    """Return the token, if one is needed, and whether it was made just now."""
    from edgemask.serve.access import default_token_file, is_loopback, load_token

    path = settings.serve.token_file
    if path is None:
        if is_loopback(settings.serve.host):
            return None, False
        path = default_token_file()
    return load_token(path)


def _greeting(host: str, port: int, token: str | None, first: bool) -> str:
    name = _own_address() if host in ("0.0.0.0", "::") else host
    url = f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"
    if token is None:
        return f"serving at {url} (Ctrl-C stops)"
    if first:
        return f"serving at {url}?token={token} (the token is shown only this once; Ctrl-C stops)"
    return f"serving at {url} with the token of the first start (Ctrl-C stops)"


def _own_address() -> str:
    """Return this machine's address in its network, or its name."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # an address of nobody; UDP sends nothing yet
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
