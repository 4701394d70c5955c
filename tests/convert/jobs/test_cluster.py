"""Work over a real Ray cluster of two nodes with one CPU each, all on this machine.

pytest -m ray
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from cluster_work import make_fragile, make_nothing, make_raising, make_slow_pid, make_square
from edgemask_convert.cli import main
from edgemask_convert.jobs.cluster import (
    Cluster,
    ClusterError,
    ClusterWarning,
    _Driver,
    cluster_map,
)
from edgemask_convert.jobs.journal import Journal

from edgemask.errors import RuntimeUnavailable, SourceError

from ..conftest import free_ports

ROOT = Path(__file__).resolve().parents[3]
HEAD = {"num_cpus": 1, "include_dashboard": False}


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'edgemask\[ray\]' here and on"):
        list(cluster_map(Cluster("auto"), make_square, [("a", 1)]))


@pytest.mark.parametrize(("cpus", "said"), [(4, False), (5, True)])
def test_a_worker_that_fits_on_no_machine(cpus: int, said: bool) -> None:
    """Ray would wait for a larger one for ever, and say nothing."""

    def wait(calls: Any, num_returns: int) -> Any:
        raise TimeoutError

    def node(alive: bool, **resources: float) -> dict[str, Any]:
        return {"Alive": alive, "Resources": resources}

    ray = SimpleNamespace(
        remote=lambda **options: lambda worker: MagicMock(),
        nodes=lambda: [node(True, CPU=2.0), node(True, CPU=4.0), node(True), node(False, CPU=64.0)],
        available_resources=lambda: {"CPU": 6.0},
        wait=wait,
        kill=lambda actor: None,
    )
    driver = _Driver(ray, Cluster("auto", cpus), make_square)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(TimeoutError):
        list(driver.run(iter(items(1))))
    expected = f"no machine of the cluster has {cpus} CPUs, the largest has 4: nothing happens"
    assert [expected in str(entry.message) for entry in caught] == [True] * said


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU; the workers see cluster_work."""
    ray = pytest.importorskip("ray", reason="pip install 'edgemask[ray]'")
    from ray.cluster_utils import Cluster as LocalCluster

    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = paths
    local = started(LocalCluster)
    yield Cluster(local.address, cpus=1)
    ray.shutdown()
    local.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def ports() -> dict[str, int]:
    """Ports of a node; those that it chooses itself it waits for, and dies if that takes long."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
    names += ("runtime_env_agent_port",)
    return dict(zip(names, free_ports(len(names)), strict=True))


def started(make: Any) -> Any:
    """Start the nodes; on a busy machine they time out now and then."""
    for attempt in range(3):
        local = make()
        try:
            local.add_node(**HEAD, **ports())
            local.add_node(num_cpus=1, **ports())
            local.wait_for_nodes()
            return local
        except Exception:
            local.shutdown()
            if attempt == 2:
                raise
    raise AssertionError


def items(count: int) -> list[tuple[str, int]]:
    return [(f"item {n}", n) for n in range(count)]


@pytest.mark.ray
def test_every_item_once(cluster: Cluster) -> None:
    found = list(cluster_map(cluster, make_square, items(20)))
    assert dict(found) == {f"item {n}": n * n for n in range(20)}
    assert len(found) == 20
    assert list(cluster_map(cluster, make_square, [])) == []


@pytest.mark.ray
def test_both_workers_work(cluster: Cluster) -> None:
    found = dict(cluster_map(cluster, make_slow_pid, items(10)))
    assert len(set(found.values())) == 2
    assert os.getpid() not in found.values()


@pytest.mark.ray
def test_a_worker_that_dies_is_named_and_replaced(cluster: Cluster, tmp_path: Path) -> None:
    make = functools.partial(make_fragile, str(tmp_path), 2)
    with pytest.warns(ClusterWarning, match=r"worker \d+ on .* died on item 3, which another") as w:
        found = dict(cluster_map(cluster, make, items(8)))
    assert found == {f"item {n}": n * n for n in range(8)}
    assert len([entry for entry in w if entry.category is ClusterWarning]) == 2


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::edgemask_convert.jobs.cluster.ClusterWarning")
def test_an_item_that_ends_every_worker(cluster: Cluster, tmp_path: Path) -> None:
    make = functools.partial(make_fragile, str(tmp_path), 99)
    with pytest.raises(ClusterError, match=r"item 3 ended 3 workers, the last was worker \d+ on"):
        list(cluster_map(cluster, make, items(8)))


@pytest.mark.ray
def test_errors_keep_their_type(cluster: Cluster) -> None:
    with pytest.raises(SourceError, match="photo 2 is damaged"):
        list(cluster_map(cluster, make_raising, items(5)))
    with pytest.raises(ModuleNotFoundError, match="no weights here"):
        list(cluster_map(cluster, make_nothing, items(5)))


@pytest.mark.ray
def test_no_cluster_there(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at '127.0.0.1:1'"):
        list(cluster_map(Cluster("127.0.0.1:1"), make_square, items(2)))


# ---- the verbs


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """COCO annotations of six small photographs, cut from the astronaut."""
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    data: dict[str, Any] = {"images": [], "annotations": []}
    data["categories"] = [{"id": 1, "name": "person"}]
    with Image.open(ROOT / "edgemask" / "assets" / "astronaut.jpg") as photograph:
        for n in range(6):
            side = 400 - 20 * n
            photograph.crop((10 * n, 0, 10 * n + side, side)).save(images / f"{n}.png")
            entry = {"id": n, "file_name": f"{n}.png", "width": side, "height": side}
            data["images"].append(entry | ({"labeled_cats": []} if n % 2 else {}))
            box = {"bbox": [60, 10, 250, side - 20], "category_id": 1, "iscrowd": 0}
            data["annotations"].append({"id": n, "image_id": n, "segmentation": [], **box})
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        if entry["id"] % 3 == 0:
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (tmp_path / "a.json").write_text(json.dumps(data))
    return tmp_path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.ray
def test_teach_gives_the_same_file(cluster: Cluster, photographs: Path) -> None:
    common = ["teach", "--teacher", "pack:people", "--annotations", photographs / "a.json"]
    common += ["--images", photographs / "images", "--short-sides", "128"]
    spread = ["--ray", cluster.address, "--ray-cpus", 1]
    assert run(*common, "--out", photographs / "one.json") == 0
    assert run(*common, "--out", photographs / "two.json", *spread) == 0
    one = (photographs / "one.json").read_bytes()
    assert (photographs / "two.json").read_bytes() == one
    assert json.loads(one)["info"]["taught_by"]["weights_sha256"]
    assert any("soft_mask" in a for a in json.loads(one)["annotations"])

    # An image that is gone is left out alike.
    (photographs / "images" / "4.png").unlink()
    assert run(*common, "--out", photographs / "three.json") == 0
    assert run(*common, "--out", photographs / "four.json", *spread) == 0
    three = (photographs / "three.json").read_bytes()
    assert (photographs / "four.json").read_bytes() == three != one


@pytest.mark.ray
def test_teach_goes_on_over_a_cluster(
    cluster: Cluster, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun alone, and killed, is finished on the cluster."""
    command = ["teach", "--teacher", "pack:people", "--annotations", photographs / "a.json"]
    command += ["--images", photographs / "images", "--short-sides", "128", "--out"]
    assert run(*command, photographs / "whole.json") == 0
    add = Journal.add

    def killed(self: Journal, image_id: int, result: Any) -> None:
        if image_id == 3:
            raise KeyboardInterrupt
        add(self, image_id, result)

    monkeypatch.setattr(Journal, "add", killed)
    assert run(*command, photographs / "parts.json") == 130
    monkeypatch.undo()
    assert len((photographs / "parts.json.partial").read_bytes().splitlines()) == 1 + 3
    assert run(*command, photographs / "parts.json", "--ray", cluster.address, "--ray-cpus", 1) == 0
    whole = (photographs / "whole.json").read_bytes()
    assert (photographs / "parts.json").read_bytes() == whole


@pytest.mark.ray
def test_evaluate_gives_the_same_file(cluster: Cluster, photographs: Path) -> None:
    pack = photographs / "people.zip"
    shutil.copy(ROOT / "edgemask" / "models" / "people.zip", pack)
    common = ["evaluate", pack, "--annotations", photographs / "a.json"]
    common += ["--images", photographs / "images", "--short-side", 128]
    assert run(*common, "--save", photographs / "one.json") == 0
    spread = ["--ray", cluster.address, "--ray-cpus", 1]
    assert run(*common, "--save", photographs / "two.json", *spread) == 0
    one = (photographs / "one.json").read_bytes()
    assert (photographs / "two.json").read_bytes() == one
    assert json.loads(one)["segm"]["AP"] is not None
    assert not list(photographs.glob("*.partial"))
