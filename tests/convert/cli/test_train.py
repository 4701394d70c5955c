"""What `train` hands to the loop, and what it makes of its end."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import backbone, build_model
from edgemask_convert.checkpoint import export_model, load_model, save_arrays
from edgemask_convert.cli import main
from edgemask_convert.cli.train import _distillation, _kept_channels
from edgemask_convert.config import ConfigError, from_dict
from edgemask_convert.data import loader
from edgemask_convert.evaluation import measure
from edgemask_convert.training import fit

from ..conftest import CLASSES, TINY, TINY_2GO, TINY_POSE, Coco, changed
from .test_cli import Capture
from .test_refusals import settings

Run = Callable[..., Any]


@pytest.fixture
def run(coco: Coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Train on three photographs up to the loop, which takes a step or is stopped at once."""
    for number in (1, 2, 3):
        coco.image(number)
        coco.add(number, [5, 5, 10, 10])
    coco.load()
    seen = SimpleNamespace()

    def loop(trainer: Any, ready: Any, header: Any, path: Path, chief: bool, dev: Any) -> Any:
        seen.header, seen.dev, seen.hint = header, dev, trainer.losses.hint
        seen.weights = {k: np.asarray(v).copy() for k, v in trainer.named.items()}
        for variable in trainer.ema.values():
            variable.assign(variable + 0.25)
        trainer.step += 1
        trainer.save(path, header)
        return seen.signal

    def batches(*arguments: Any) -> None:
        _, _, seen.start, seen.steps, _, seen.zoom = arguments

    monkeypatch.setattr(fit, "fit", loop)
    monkeypatch.setattr(loader, "batches", batches)

    def start(*extra: Any, out: str = "run", values: Any = TINY, signal: Any = None) -> Any:
        seen.signal = signal
        command = ["train", "--annotations", coco.path, "--images", coco.folder]
        command += ["--out", tmp_path / out, *settings(values), *extra]
        seen.code = main([str(part) for part in command])
        return seen

    return start


def test_a_run_that_ends(run: Run, tmp_path: Path, capsys: Capture) -> None:
    """4 epochs of 3 photographs in batches of 2; the result is the average."""
    seen = run()
    assert (seen.code, seen.start, seen.steps, seen.zoom) == (0, 0, 6, 1)
    assert seen.header["total_steps"] == 6
    assert seen.header["data"]["images"] == 3
    assert "finished: " in capsys.readouterr().out
    model, header = load_model(tmp_path / "run" / "model.npz")
    assert header["step"] == 1
    name = "backbone/fpn_lateral5/kernel"
    found = np.asarray(model.named_weights()[name])
    np.testing.assert_allclose(found, seen.weights[name] + 0.25, atol=1e-3)


def test_a_run_that_is_stopped_and_goes_on(run: Run, tmp_path: Path, capsys: Capture) -> None:
    assert run(signal=15).code == 128 + 15
    assert "stopped at step 1 of 6: the same command resumes" in capsys.readouterr().out
    assert not (tmp_path / "run" / "model.npz").exists()
    seen = run()
    assert (seen.code, seen.start, seen.steps) == (0, 1, 6)
    assert "resuming" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.npz").exists()


def test_the_shortest_run_has_a_step(run: Run) -> None:
    assert run("--set", "train.epochs=0.01").steps == 1


def test_the_seed_decides_about_the_first_weights(run: Run) -> None:
    found = [
        run("--set", f"train.seed={seed}", out=f"run{n}").weights["box_head/box_fc1/kernel"]
        for n, seed in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("wanted", [True, False])
def test_operations_are_deterministic_if_that_is_wanted(
    run: Run, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(True))
    assert run("--set", f"train.deterministic={str(wanted).lower()}").code == 0
    assert calls == [True] * wanted


def test_first_weights_of_the_trunk(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        backbone, "load_initial_weights", lambda model, path: asked.append(path) or ["Conv1"]
    )
    assert run("--init", "mobilenet.npz").code == 0
    assert asked == [Path("mobilenet.npz")]
    assert "1 layers initialised from mobilenet.npz" in capsys.readouterr().out


def test_layers_that_start_fresh_are_named(run: Run, tmp_path: Path, capsys: Capture) -> None:
    """The other network knew one class."""
    values = changed(TINY, classes=[1])
    header = {"config": from_dict(values).to_dict(), "classes": CLASSES[:1]}
    export_model(tmp_path / "one.npz", build_model(from_dict(values).model), header)
    assert run("--start-from", tmp_path / "one.npz").code == 0
    assert "for these layers, so they start fresh: box_logits" in capsys.readouterr().out


def test_stages_without_weights_cannot_stay_as_they_are(run: Run, capsys: Capture) -> None:
    assert run("--set", 'train.only=["mask_head"]').code == 1
    assert "have no weights yet: give --start-from" in capsys.readouterr().err


def test_a_keypoint_head_needs_keypoints(run: Run, capsys: Capture) -> None:
    assert run(values=TINY_POSE).code == 1
    assert "no object of class 1 in" in capsys.readouterr().err


def test_where_the_photographs_of_the_dev_set_are(
    run: Run, coco: Coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        measure, "DevMeasurement", lambda trainer, classes, path, folder: (path, folder)
    )
    assert run("--dev", "d.json").dev == (Path("d.json"), coco.folder)
    seen = run("--dev", "d.json", "--dev-images", tmp_path, out="other")
    assert seen.dev == (Path("d.json"), tmp_path)


def test_a_teacher_that_looks_closer_gets_larger_crops(
    run: Run, tiny_model: Any, tmp_path: Path
) -> None:
    """Without a teacher nobody would look at them."""
    header = {"config": from_dict(TINY).to_dict(), "classes": CLASSES}
    export_model(tmp_path / "teacher.npz", tiny_model, header)
    closer = ["--set", "distill.zoom=2"]
    assert run(*closer, "--distill", tmp_path / "teacher.npz").zoom == 2
    assert run(*closer, out="alone").zoom == 1


def test_a_hint_of_another_kind(run: Run, tmp_path: Path, capsys: Capture) -> None:
    """It has other anchors and classes, and a map of stride 16; the run records which it was."""
    config = from_dict(changed(TINY_2GO, classes=[1]))
    other = {"config": config.to_dict(), "classes": CLASSES[:1]}
    export_model(tmp_path / "hint.npz", build_model(config.model), other)
    seen = run("--hint", tmp_path / "hint.npz")
    assert seen.code == 0
    digest = hashlib.sha256((tmp_path / "hint.npz").read_bytes()).hexdigest()
    assert seen.header["data"]["hint"] == digest
    assert seen.hint.strides == {"c4": 16}
    assert seen.hint.closeups == 3
    assert "hint" not in run(out="alone").header["data"]
    assert run("--hint", tmp_path / "none.npz").code == 1
    assert "none.npz" in capsys.readouterr().err
    heads = ["--set", 'train.only=["mask_head"]', "--start-from", tmp_path / "run" / "model.npz"]
    assert run("--hint", tmp_path / "hint.npz", *heads, out="heads").code == 1
    assert "--hint teaches the backbone only, and train.only" in capsys.readouterr().err


def test_a_run_that_ends_before_the_learning_rate_is_up(run: Run, capsys: Capture) -> None:
    """Three photographs, four times, two in a step: six steps."""
    for warmup, said in ((5, False), (6, True), (300, True)):
        run("--set", f"train.warmup_steps={warmup}", out=str(warmup))
        assert ("6 steps, all within train.warmup_steps" in capsys.readouterr().out) == said
    run("--set", "train.warmup_steps=12", out="half")
    assert "only rises, up to 0.00075" in capsys.readouterr().out


def test_a_teacher_that_has_nothing_to_teach(tiny_pose: Any, tmp_path: Path) -> None:
    """It says nothing of keypoints."""
    config = from_dict({**TINY_POSE, "train": {**TINY_POSE["train"], "only": ["keypoint_head"]}})
    options = argparse.Namespace(distill=tmp_path / "teacher.npz")
    with pytest.raises(ConfigError, match=r"--distill teaches .* and train\.only = \['keypoint_"):
        _distillation(options, config, tiny_pose, None, print)


@pytest.mark.parametrize(("zoom", "said"), [(1, 1), (2, 0)])
def test_channels_that_the_teacher_has_not_got(
    tiny_model: Any, tmp_path: Path, zoom: int, said: int
) -> None:
    """They are numbers of a parent with 24, and the teacher has 20; closer up none are compared."""
    values = changed(TINY, neck__channels=20)
    header = {"config": from_dict(values).to_dict(), "classes": CLASSES}
    export_model(tmp_path / "teacher.npz", build_model(from_dict(values).model), header)
    config = from_dict(TINY | {"distill": {"zoom": zoom}})
    options = argparse.Namespace(distill=tmp_path / "teacher.npz")
    lines: list[str] = []
    found = _distillation(options, config, tiny_model, list(range(8, 24)), lines.append)
    assert found is not None
    assert found.channels is None
    assert len(lines) == said


def test_a_run_that_goes_on_has_the_channels_that_it_had(tmp_path: Path) -> None:
    """Whatever --start-from names by now."""
    first, out = tmp_path / "first.npz", tmp_path / "run"
    options = argparse.Namespace(start_from=first, out=out)
    assert _kept_channels(options) is None
    save_arrays(first, {}, {"neck_channels": [1, 2]})
    assert _kept_channels(options) == [1, 2]
    save_arrays(out / "checkpoint.npz", {}, {"neck_channels": [3, 4]})
    assert _kept_channels(options) == [3, 4]
