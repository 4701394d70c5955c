"""From ``--teacher TEXT`` to a teacher."""

from __future__ import annotations

from .protocol import Teacher, TeacherError, import_teacher

__all__ = ["make_teacher"]


def make_teacher(
    spec: str, short_sides: tuple[int, ...] | None = None, flip: bool | None = None
) -> Teacher:
    """Make a teacher.

    Parameters
    ----------
    spec : str
        ``maskrcnn2go:FOLDER``, ``torchvision``, ``torchvision:WEIGHTS``, ``pack:FILE_OR_NAME``,
        ``checkpoint:FILE`` or ``module:function``.
    short_sides : tuple of int, optional
        Sizes to look at the image; None takes the teacher's own.
    flip : bool, optional
        Also look at the mirrored image; None takes the teacher's own choice.

    Raises
    ------
    TeacherError
        Unknown or incomplete text, or options that a teacher of one's own cannot have.
    """
    kind, _, argument = spec.partition(":")
    options: dict[str, object] = {}
    if short_sides:
        options["short_sides"] = short_sides
    if flip is not None:
        options["flip"] = flip
    if kind == "torchvision":
        from .torchvision import torchvision_maskrcnn

        return torchvision_maskrcnn(argument, **options)  # type: ignore[arg-type]
    if not argument:
        raise TeacherError(
            f"teacher {spec!r} is not complete: give maskrcnn2go:FOLDER, torchvision, "
            "pack:FILE, checkpoint:FILE or module:function"
        )
    if kind == "maskrcnn2go":
        from .maskrcnn2go import maskrcnn2go

        return maskrcnn2go(argument, **options)  # type: ignore[arg-type]
    if kind in ("pack", "checkpoint"):
        from .model import edgemask_model

        return edgemask_model(argument, **options)  # type: ignore[arg-type]
    if options:
        raise TeacherError(f"--short-sides and --flip are not for the teacher {spec!r}")
    return import_teacher(spec)
