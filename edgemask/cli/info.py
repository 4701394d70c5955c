"""``edgemask info``: what is in a model pack."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgemask.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from edgemask.modelpack import ModelPack

HELP = "show what is in a model pack and how the runtime handles it"
EXAMPLE = "edgemask info people"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "model",
        metavar="PACK",
        nargs="?",
        default="people",
        help="name of a bundled model, or path to a model pack (default: people)",
    )


def run(options: argparse.Namespace) -> int:
    """Print manifest, sizes, partitions and measured accuracy."""
    from edgemask.modelpack import bundled_packs, load_pack

    pack = load_pack(options.model)
    manifest = pack.manifest
    names = list(pack.class_names.values())
    classes = ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
    for label, value in (
        ("name", f"{pack.name} {pack.version}"),
        ("about", manifest["description"]),
        ("file", pack.path),
        ("sha256", pack.sha256),
        ("licence", manifest["license"]),
        *(("credit", credit) for credit in manifest["credits"]),
        ("classes", classes),
        *((("keypoint", ", ".join(pack.keypoint["names"])),) if pack.keypoint else ()),
        ("input", f"short side {pack.input['short_side']}, multiples of {pack.input['stride']}"),
        ("bundled", ", ".join(bundled_packs())),
    ):
        print(f"{label:<9s}{value}")
    print()
    _print_stages(pack)
    for title in ("training", "metrics"):
        if manifest[title]:
            print()
            print(title)
            _print_nested(manifest[title], "  ")
    return 0


def _print_stages(pack: ModelPack) -> None:
    from edgemask.runtime import Stage, load_runtime

    try:
        runtime = load_runtime()
    except RuntimeUnavailable as error:
        print(f"stages are not checked: {error}")
        return
    print(f"stages in {runtime.name} {runtime.version}")
    for name, content in pack.stages.items():
        stage = Stage(content, pack.stage_spec(name), 1, name=name)
        outside = Counter(stage.operators_outside)
        left = ", ".join(f"{count}x {operator}" for operator, count in outside.items())
        partitions = f"{stage.delegated} XNNPACK partition{'' if stage.delegated == 1 else 's'}"
        print(
            f"  {name:<14s}{len(content) / 1e3:8.1f} kB  {partitions}"
            + (f", outside: {left}" if left else ", nothing outside")
        )


def _print_nested(values: Mapping[str, Any], indent: str) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{key}")
            _print_nested(value, indent + "  ")
        else:
            print(f"{indent}{key}: {_shown(value)}")


def _shown(value: Any) -> str:
    """Return a value of the manifest in words, not as Python writes it."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "none" if value is None else str(value)
