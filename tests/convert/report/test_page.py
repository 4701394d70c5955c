from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from edgemask_convert.cli import main
from edgemask_convert.report.document import Beside, Chart, Document, Section, Table, Text
from edgemask_convert.report.matching import match
from edgemask_convert.report.predictions import predict, read_predictions
from edgemask_convert.report.sections import curves
from edgemask_convert.report.sheet import choose
from edgemask_convert.report.svg import Axis, Bar, Line, chart
from synthetic import small_manifest, write_pack

from edgemask.errors import InputError, SourceError
from edgemask.evaluate import evaluate

from .conftest import predictions


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects text and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle", "rect"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack that knows the two shapes; what it finds does not matter here."""
    manifest = small_manifest()
    manifest["classes"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "triangle"}]
    return write_pack(tmp_path / "small.zip", manifest)


def test_report(
    pack: Path, drawn: Path, truth: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    found = predictions(truth)
    saved = tmp_path / "predictions.json"
    saved.write_text(json.dumps(found))
    page, numbers = tmp_path / "report.html", tmp_path / "report.md"
    command = ["report", pack, "--annotations", drawn / "annotations.json", "--images",
               drawn / "images", "--predictions", saved, "--pictures", 2]  # fmt: skip
    assert main([str(part) for part in [*command, "--out", page, numbers]]) == 0
    assert "report.html" in capsys.readouterr().out
    reader = Reader()
    reader.feed(page.read_text("utf-8"))
    reader.close()
    assert not reader.open
    shown = " ".join(reader.text)
    expected = evaluate(found, truth)
    text = numbers.read_text("utf-8")
    for kind in ("segm", "bbox"):
        for name in ("AP", "AP50", "AP75", "APs"):
            assert f"{expected[kind][name]:.3f}" in shown
            assert f"{expected[kind][name]:.3f}" in text
    assert "5 images that show no object" in shown
    assert "disc" in text
    # Self-contained: nothing is fetched, and the six photographs are inside.
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert len(reader.addresses) == 6
    assert "http" not in page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "data:" not in text
    assert "| mask, int8 |" in text
    first = page.read_bytes()
    assert main([str(part) for part in [*command, "--out", page]]) == 0
    assert page.read_bytes() == first


def test_report_of_nothing(pack: Path, drawn: Path, tmp_path: Path) -> None:
    """A network that finds nothing gets its page too."""
    (tmp_path / "none.json").write_text("[]")
    page, none = tmp_path / "report.html", tmp_path / "none.json"
    command = ["report", pack, "--annotations", drawn / "annotations.json", "--images",
               drawn / "images", "--predictions", none, "--out", page]  # fmt: skip
    assert main([str(part) for part in command]) == 0
    assert "Nothing was found" in page.read_text()


def test_there_is_no_ap_of_masks_that_nobody_drew() -> None:
    box = [5, 5, 20, 20]
    labelled = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "height": 50, "width": 60}],
        "annotations": [labelled | {"segmentation": []}],
    }
    mask = {"size": [50, 60], "counts": [0, 3000]}
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9, "segmentation": mask}]
    masks, boxes = match(found, truth, [1]), match(found, truth, [1], "bbox")
    for chart_ in curves({"int8": masks}, boxes).blocks:
        assert "mask, int8 (–)" in chart_.svg
        assert "box, int8 (1.000)" in chart_.svg


def test_keypoints_have_their_table(
    pack: Path, drawn: Path, truth: dict[str, Any], tmp_path: Path
) -> None:
    """Of a pack that finds keypoints; here each is where the label is, but for one."""
    found = []
    for entry in truth["annotations"]:
        x, y, w, h = entry["bbox"]
        points = [[x + w * n / 16, y + h * n / 16, 2] for n in range(17)]
        entry["keypoints"] = (
            [value for point in points for value in point] if entry["category_id"] == 1 else None
        )
        wrong = {**entry, "score": 0.9}
        if entry["category_id"] == 1:
            wrong["keypoints"] = [0.0, 0.0, 1.0, *entry["keypoints"][3:]]
        else:
            del wrong["keypoints"]
        found.append({k: v for k, v in wrong.items() if k not in ("id", "iscrowd", "area")})
    for name, content in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    page, labelled, saved = (tmp_path / n for n in ("report.md", "truth.json", "found.json"))
    command = ["report", pack, "--annotations", labelled, "--images", drawn / "images",
               "--predictions", saved, "--out", page]  # fmt: skip
    assert main([str(part) for part in command]) == 0
    expected = evaluate(found, truth, ["keypoints"], [1, 2])["keypoints"]
    assert 0.5 < expected["AP"] < 1
    (row,) = [n for n in page.read_text().splitlines() if n.startswith("| keypoints, int8")]
    assert row.split("|")[2].strip() == f"{expected['AP']:.3f}"


def test_report_errors(
    pack: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> str:
        assert main([str(a) for a in ("report", *arguments)]) == 1
        (line,) = [n for n in capsys.readouterr().err.splitlines() if "edgemask-convert: e" in n]
        return line

    for option in ("--pictures", "--limit", "--short-side"):
        assert main(["report", str(pack), option, "-1"]) == 1
        assert f"argument {option}" in capsys.readouterr().err
    common = [pack, "--annotations", drawn / "annotations.json", "--images", drawn / "images"]
    assert "must end in .html or .md" in fails(*common, "--out", tmp_path / "report.pdf")
    out = ["--out", tmp_path / "r.html"]
    assert "none.json" in fails(*common, *out, "--predictions", tmp_path / "none.json")
    other = tmp_path / "other.json"
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 9}]}
    other.write_text(json.dumps(data))
    text = fails(pack, "--annotations", other, "--images", drawn / "images", *out)
    assert "other.json lists no image" in text
    data["images"] = [{"id": 1, "file_name": "1.png", "height": 9, "width": 9}]
    other.write_text(json.dumps(data))
    text = fails(pack, "--annotations", other, "--images", drawn / "images", *out)
    assert "none of the classes [1, 2] of small" in text
    assert not (tmp_path / "r.html").exists()


def test_predictions_go_on_where_they_stopped(
    pack: Path, drawn: Path, truth: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Stopping:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __call__(self, rgb: Any) -> Any:
            from edgemask.instances import Instances

            if len(seen) == 3:
                seen.append(-1)
                raise KeyboardInterrupt
            seen.append(1)
            return Instances.empty(*rgb.shape[:2])

    monkeypatch.setattr("edgemask.segmenter.Segmenter", Stopping)
    where = (pack, truth, drawn / "images", tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        predict(*where)
    count = len(truth["images"])
    told: list[tuple[int, int]] = []
    assert predict(*where, progress=lambda *n: told.append(n)) == []
    assert len(seen) == 1 + count  # each image once, and the one that was cut off
    assert told[0] == (4, count)
    assert told[-1] == (count, count)
    predict(*where)
    assert len(seen) == 1 + count
    truth["images"][0]["id"] = 999  # an image that is not known yet
    predict(*where)
    predict(*where, short_side=96)  # another question
    assert len(seen) == 2 + 2 * count


def test_read_predictions(truth: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(SourceError, match=r"p\.json cannot be read"):
        read_predictions(path, truth)
    for text in ("{", "[1]", '[{"score": 1}]'):
        path.write_text(text)
        with pytest.raises(SourceError, match="is not a list of COCO results"):
            read_predictions(path, truth)
    path.write_text('[{"image_id": 12345, "score": 1}]')
    with pytest.raises(InputError, match="none of the annotated images"):
        read_predictions(path, truth)
    path.write_text('[{"image_id": 12345}, {"image_id": 1}]')
    assert read_predictions(path, truth) == [{"image_id": 1}]


def test_choose() -> None:
    quality = {n: (n / 10, 0) for n in range(10)}
    assert choose(quality, 2) == {"best": [9, 8], "typical": [5, 4], "worst": [0, 1]}
    worst = {1: (0.0, 3), 2: (0.0, 9), 3: (0.5, 1), 4: (0.9, 0), 5: (0.7, 0), 6: (0.6, 0)}
    assert choose(worst, 2)["worst"] == [2, 1]
    for count in range(8):
        groups = choose({n: (0.5, n) for n in range(count)}, 3)
        ids = [image_id for group in groups.values() for image_id in group]
        assert len(ids) == len(set(ids))
        assert len(ids) == min(count, 3 * -(-count // 3))


def test_chart() -> None:
    lines = [
        Line("a < b", [0, 0.5, 1], [0, float("nan"), 1], 1, mark=(1, 1, "here")),
        Line("", [0, 1], [1, 0], 2, True),
    ]
    bars = [Bar(0, 0.1, 0.5, "7"), Bar(0.1, 0.2, float("nan"), "none")]
    root = ElementTree.fromstring(
        chart(Axis.shares("recall"), Axis.shares("precision"), lines, bars, "what it shows")
    )
    text = [element.text for element in root.iter() if element.text]
    for wanted in ("recall", "precision", "a < b", "here", "7"):
        assert wanted in text
    assert "none" not in text
    assert root.get("aria-label") == "what it shows"
    (path,) = [e.get("d") for e in root.iter() if e.get("stroke") == "var(--c1)" and len(e)]
    assert path == "M52.0 254.0M406.0 12.0"  # the corners of the frame, with a gap between them


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(2.3, [0, 0.5, 1, 1.5, 2, 2.5]), (0.1, [0, 0.02, 0.04, 0.06, 0.08, 0.1]), (0, None),
     (7, [0, 2, 4, 6, 8]), (5, [0, 1, 2, 3, 4, 5])],
)  # fmt: skip
def test_axis_of_counts(highest: float, ticks: list[float] | None) -> None:
    axis = Axis.counts("n", highest)
    assert axis.high >= highest
    assert axis.high > 0
    if ticks is not None:
        assert list(axis.ticks) == pytest.approx(ticks)
        labels = [f"{value:.{axis.digits}f}" for value in axis.ticks]
        assert len(set(labels)) == len(labels)


def test_document_escapes() -> None:
    table = Table(["<b>", "n|m"], [["a & b", "1|2"]])
    beside = Beside(Chart("<svg></svg>", "see <this>"), [Text("1 < 2")])
    document = Document("a<b", "", [Section("s&t", [table, beside])])
    page = document.html()
    assert "<b>" not in re.sub(r"<style>.*</style>", "", page)
    assert "a &amp; b" in page
    assert "<svg></svg>" in page
    text = document.markdown()
    assert "| a & b | 1/2 |" in text
    assert "1 < 2" in text
