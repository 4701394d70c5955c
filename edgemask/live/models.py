"""Which models an engine may be told to run, and the change from one to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from edgemask.live.tuning import Tuning

__all__ = ["Models", "names_of", "several"]

Segmenting = Callable[..., Any]


def several(given: Segmenting | Sequence[Segmenting]) -> tuple[Segmenting, ...]:
    """Return one or more segmenters as a tuple."""
    return tuple(given) if isinstance(given, Sequence) else (given,)


def names_of(given: str, bundled: Iterable[str]) -> tuple[dict[str, str], str]:
    """Name the models that may be chosen from afar.

    Parameters
    ----------
    given : str
        What the user asked for: a bundled name, or the path to a pack.
    bundled : iterable of str

    Returns
    -------
    packs : dict of str to str
        Name → what :func:`edgemask.modelpack.load_pack` takes. Nothing of a path is in the name but
        its last part.
    name : str
        That of the given one.
    """
    packs = {name: name for name in bundled}
    if given in packs:
        return packs, given
    name = PurePath(given).name or given
    while name in packs:
        name += " (file)"
    return {**packs, name: given}, name


class Models:
    """The segmenters that run, all of one model, and those that may take their place.

    :meth:`load` and :meth:`take` are called by one thread at a time.

    Parameters
    ----------
    segmenter : callable, or sequence of them
    makers : mapping of str to callable
        Name → function that returns as many new ones. Empty: there is no choice.
    name : str, optional
        That of `segmenter`, one of `makers`.

    Attributes
    ----------
    segmenters : tuple of callable
    name : str or None
    loading : str or None
        The model that is being loaded.
    error : str
        Why the last one that was asked for does not run; empty if it does.
    """

    def __init__(
        self,
        segmenter: Segmenting | Sequence[Segmenting],
        makers: Mapping[str, Callable[[], Segmenting | Sequence[Segmenting]]] | None = None,
        name: str | None = None,
    ) -> None:
        self._makers = dict(makers or {})
        if self._makers and name not in self._makers:
            raise ValueError(f"the model {name!r} is not one of {sorted(self._makers)}")
        self.segmenters = several(segmenter)
        self.name = name
        self.loading: str | None = None
        self.error = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the models that may be chosen, sorted."""
        return tuple(sorted(self._makers))

    def load(self, name: str, tuning: Tuning, rgb: Any = None) -> tuple[Segmenting, ...] | None:
        """Load another model, and try it on a frame.

        Parameters
        ----------
        name : str
            One of :attr:`choices`.
        tuning : Tuning
            Of the model that runs.
        rgb : ndarray of uint8, shape (H, W, 3), optional
            None: it is only loaded.

        Returns
        -------
        tuple of callable, or None
            The segmenters; None if it does not run here, and then :attr:`error` says why.
        """
        self.loading, self.error = name, ""
        try:
            segmenters = several(self._makers[name]())
            if len(segmenters) != len(self.segmenters):
                raise ValueError(f"{len(segmenters)} segmenters in place of {len(self.segmenters)}")
            tuning.moved_to(segmenters[0], name)  # its bounds make sense, or this raises
            if rgb is not None:
                segmenters[0](rgb)
        except Exception as error:  # whatever is wrong with it, the old one goes on
            reason = " ".join(str(error).split()) or type(error).__name__
            self.error = f"the model {name} was not taken, {self.name} stays in use: {reason}"
            return None
        finally:
            self.loading = None
        return segmenters

    def take(self, segmenters: tuple[Segmenting, ...], name: str) -> None:
        """Let a loaded model take the place of the one that runs."""
        self.segmenters, self.name = segmenters, name

    def status(self) -> dict[str, Any] | None:
        """Return what runs, JSON-ready; None if nothing is known about it."""
        pack = getattr(self.segmenters[0], "pack", None)
        found: dict[str, Any] = {}
        if pack is not None:
            found |= {"name": pack.name, "version": pack.version, "sha256": pack.sha256}
        if self._makers:
            found |= {"choice": self.name, "loading": self.loading, "error": self.error or None}
        return found or None
