"""The page in a real browser: what a phone and a desktop show.

Run by .ci/legs/browser. The pictures it takes are kept in EDGEMASK_SCREENSHOTS, if that is set.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fakes import FakeBoard, SlowSegmenter, until
from numpy.typing import NDArray
from PIL import Image

from edgemask.errors import ModelError
from edgemask.live.engine import Engine
from edgemask.serve.server import Server
from edgemask.sources import Frame, Source

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[3]
PHONE = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True,
    "has_touch": True, "color_scheme": "dark",
}  # fmt: skip
DESKTOP = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}


class Swaying(Source):
    """A camera before which the bundled photograph swings to and fro."""

    live = True

    def __init__(self) -> None:
        super().__init__("camera:0")
        picture = Image.open(ROOT / "edgemask" / "assets" / "astronaut.jpg").convert("RGB")
        self._picture = picture.resize((560, 560)).crop((0, 0, 560, 420))
        self._index = -1

    def read(self, timeout: float = 5.0) -> Frame | None:
        time.sleep(0.1)
        self._index += 1
        shift = round(40 * (1 + np.sin(self._index / 4)))
        rgb = np.asarray(self._picture.crop((shift, 0, shift + 480, 360))).copy()
        name = f"camera-{self._index:06d}"
        return None if self.closed else Frame(rgb, self._index, None, time.time_ns(), name)

    def _release(self) -> None:
        pass


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser")
    with playwright.sync_playwright() as driver:
        program = os.environ.get("EDGEMASK_CHROMIUM", "/usr/bin/chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Engine, Server, FakeBoard]]:
    from edgemask import Segmenter

    def broken() -> Any:
        raise ModelError("garden.zip is not a complete zip file: fetch the pack again")

    models = {"people": Segmenter, "people again": Segmenter, "garden.zip": broken}
    board = FakeBoard(61.0)
    engine = Engine(
        Swaying, Segmenter(), max_fps=6, max_temp=75, board=board, board_seconds=0.2,
        models=models, model="people",
    )  # fmt: skip
    with engine, Server(engine, port=0, token="a-token-of-some-length") as server:
        until(engine.processing, 60)
        yield engine, server, board


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def page(
    request: pytest.FixtureRequest, chromium: Any, site: tuple[Engine, Server, FakeBoard]
) -> Iterator[Any]:
    context = chromium.new_context(**request.param)
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    url = f"http://127.0.0.1:{site[1].port}/"
    page.goto(f"{url}?token=a-token-of-some-length", wait_until="domcontentloaded")
    assert page.url == url  # the token has left the address bar
    page.wait_for_selector("#list li", timeout=30_000)
    yield page
    context.close()


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("EDGEMASK_SCREENSHOTS")
    if folder:
        size = page.viewport_size
        page.screenshot(path=Path(folder) / f"{name}-{size['width']}.png")


def picture(page: Any) -> NDArray[np.int16]:
    """Return what the browser shows of the stream."""
    png = page.locator("#picture").screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def changed(page: Any, timeout: float = 15) -> Callable[[], bool]:
    first = picture(page)
    return lambda: bool((np.abs(picture(page) - first).max(axis=2) > 40).mean() > 0.02)


def test_the_stream_moves_and_the_list_fills(page: Any) -> None:
    shown = picture(page)
    assert shown.std() > 20  # a photograph, and not a black rectangle
    until(changed(page), 15)
    assert page.locator("#state").inner_text() == "live"
    assert page.locator("#list li").first.inner_text().startswith("person")
    assert float(page.locator("#fps").inner_text()) > 0
    assert page.locator("#temperature").inner_text() == "61"
    keep(page, "live")


def test_nothing_sticks_out_and_nothing_complains(page: Any) -> None:
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        "[...document.body.querySelectorAll('*')].filter(e => {"
        "const box = e.getBoundingClientRect();"
        "return box.width && (box.left < -1 || box.right > innerWidth + 1)"
        "}).map(e => e.outerHTML)"
    )
    assert outside == []
    assert page.complaints == []


def test_a_slider_changes_the_engine(page: Any, site: tuple[Engine, Server, FakeBoard]) -> None:
    page.wait_for_selector("input[name=score_threshold]:visible")
    slider = page.locator("input[name=score_threshold]")
    try:
        slider.fill("0.99")
        until(lambda: site[0].status()["settings"]["score_threshold"] == 0.99, 10)
        until(lambda: page.locator("#list li").count() == 0, 10)
        slider.fill("0.5")
        until(lambda: page.locator("#list li").count() > 0, 10)
    finally:
        site[0].configure(score_threshold=0.5)


def test_the_model_is_chosen_from_a_list(page: Any, site: tuple[Engine, Server, FakeBoard]) -> None:
    def running() -> str:
        return str(site[0].status()["model"]["choice"])

    page.wait_for_selector("select[name=model]:visible")
    names = page.locator("select[name=model] option").all_inner_texts()
    assert names == ["garden.zip", "people", "people again"]
    chosen = page.locator("select[name=model]")
    try:
        # The page follows the stream of events, whose last one may be from before the last switch.
        until(lambda: chosen.input_value() == "people", 10)
        chosen.select_option("people again")
        until(lambda: running() == "people again", 30)
        keep(page, "model")
        chosen.select_option("garden.zip")
        note = page.locator("#note")
        until(lambda: "The model garden.zip was not taken, people again stays in use" in
              note.text_content(), 30)  # fmt: skip
        until(lambda: chosen.input_value() == "people again", 30)
        keep(page, "model-refused")
        assert running() == "people again"
        assert page.complaints == []
    finally:
        site[0].configure(model="people")
        until(lambda: running() == "people", 30)


def test_heat_is_shown(page: Any, site: tuple[Engine, Server, FakeBoard]) -> None:
    board = site[2]
    board.temperature_c, board.bits = 79.0, 0x50005
    note = page.locator("#note")
    until(lambda: "under-voltage" in note.text_content(), 15)
    until(lambda: "Slowed down" in note.text_content(), 15)
    assert note.is_visible()
    keep(page, "hot")
    board.temperature_c, board.bits = 61.0, 0


def test_streams_end_while_the_page_is_hidden(
    page: Any, site: tuple[Engine, Server, FakeBoard]
) -> None:
    publisher = site[1]._publisher
    until(lambda: publisher.pictures.readers == 1, 10)
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    event = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true" + event)
    until(lambda: publisher.pictures.readers == publisher.events.readers == 0, 10)
    page.evaluate(hide % "false" + event)
    until(lambda: publisher.pictures.readers == publisher.events.readers == 1, 10)
    until(changed(page), 15)


class Blinking(Source):
    """A slow camera: frames of odd number are bright."""

    live = True

    def __init__(self) -> None:
        super().__init__("camera:0")
        self._index = -1

    def read(self, timeout: float = 5.0) -> Frame | None:
        time.sleep(2)
        self._index += 1
        rgb = np.full((48, 64, 3), 30 + 190 * (self._index % 2), np.uint8)
        return Frame(rgb, self._index, None, time.time_ns(), f"camera-{self._index:06d}")

    def _release(self) -> None:
        pass


def test_the_picture_is_not_one_behind_the_list(chromium: Any) -> None:
    engine = Engine(Blinking, SlowSegmenter(), board=FakeBoard())
    with engine, Server(engine, port=0) as server:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/", wait_until="domcontentloaded")
        page.wait_for_selector("#list li", timeout=30_000)
        agreed = 0
        for _ in range(12):
            before = page.evaluate("latest.index")
            shown = picture(page)
            below_the_mask = shown[shown.shape[0] * 6 // 7, shown.shape[1] // 2]
            bright = bool(below_the_mask.mean() > 128)
            if page.evaluate("latest.index") == before:  # no frame came meanwhile
                agreed += 1 if bright == bool(before % 2) else -1
            time.sleep(0.5)
        page.close()
    assert agreed >= 3
