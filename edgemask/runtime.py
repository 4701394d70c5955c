"""Running one stage of a pack with the TFLite runtime.

Tensors are found by the names in the manifest, never by their order in the file, and what the
manifest says about each is checked against the file. Outputs are views of the runtime's memory.
"""

from __future__ import annotations

import functools
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import InputError, ModelError
from edgemask.interpreter import (
    RuntimeInfo,
    count_delegates,
    default_threads,
    load_runtime,
    pointer_bits,
    tensor_view,
)

__all__ = ["RuntimeInfo", "Stage", "default_threads", "load_runtime"]


def _warn_slow(stage: str, runtime: RuntimeInfo) -> None:
    """Say why an int8 stage without XNNPACK is slow: once per runtime, or once per stage."""
    if runtime.int8_delegate:
        _warn_once(
            f"XNNPACK runs no part of the int8 stage {stage}, which runs many times slower: "
            "use a pack that edgemask-convert verify has passed"
        )
    else:
        cure = "pip install ai-edge-litert" if pointer_bits() == 64 else "use a 64-bit system"
        _warn_once(f"{runtime.name} runs int8 without XNNPACK, many times slower: {cure}")


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)


def _count(threads: Any) -> int:
    whole = isinstance(threads, numbers.Integral) and not isinstance(threads, bool)
    if not whole or threads < 1:
        raise InputError(f"threads is {threads!r}: give a positive integer, or None for all")
    return int(threads)


class Stage:
    """One TFLite file of a pack, ready to run. Not safe to share between threads.

    Parameters
    ----------
    content : bytes
        The flatbuffer.
    spec : mapping
        Its entry under ``stages`` in the manifest.
    threads : int, optional
        Threads of the runtime; None uses every CPU that this process may use.
    name : str, optional
        What to call the stage in messages; by default its file name without the suffix.

    Raises
    ------
    ModelError
        The file is damaged, has an operator this runtime does not know, or does not match `spec`.
    RuntimeUnavailable
        No runtime works here.
    InputError
        `threads` is not a positive integer.
    """

    def __init__(
        self,
        content: bytes,
        spec: Mapping[str, Any],
        threads: int | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or str(spec.get("file", "stage")).removesuffix(".tflite")
        count = _count(default_threads() if threads is None else threads)
        self.runtime = load_runtime()
        try:
            self._interpreter = self.runtime.interpreter(
                model_content=bytes(content), num_threads=count
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"stage {self.name} does not load in {self.runtime.name} {self.runtime.version}: "
                f"{_first_line(error)}; use a pack made for this version, or upgrade the runtime"
            ) from error
        self._inputs = self._match(spec["inputs"], self._interpreter.get_input_details())
        self._outputs = self._match(spec["outputs"], self._interpreter.get_output_details())
        self._shapes: dict[str, tuple[int, ...]] = {
            key: tuple(int(n) for n in tensor["shape"]) for key, tensor in self._inputs.items()
        }
        delegated = self.delegated
        # Where one partition is all there is, tensors stay where they are until they are allocated
        # anew; an operator outside of it might move its outputs whenever it runs.
        self._settled = delegated == 1 and not self.operators_outside
        self._views: dict[tuple[str, bool], NDArray[Any]] = {}
        int8 = any(tensor["dtype"] is np.int8 for tensor in self._inputs.values())
        if int8 and delegated == 0:
            _warn_slow(self.name, self.runtime)

    def _match(
        self, specs: Mapping[str, Any], details: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Find the tensors of the manifest in the file and check that both say the same."""
        by_name = {detail["name"]: detail for detail in details}
        tensors = {}
        for key, spec in specs.items():
            detail = by_name.get(spec["tensor"])
            if detail is None:
                raise ModelError(
                    f"stage {self.name} has no tensor {spec['tensor']!r} for {key}, only "
                    f"{sorted(by_name)}: rebuild the pack"
                )
            scale, zero_point = (float(detail["quantization"][0]), int(detail["quantization"][1]))
            declared = spec["scale"] or 0.0, spec["zero_point"] or 0
            signature = [int(n) for n in detail["shape_signature"]]
            same_shape = len(signature) == len(spec["shape"]) and all(
                said is None or found in (said, -1)
                for said, found in zip(spec["shape"], signature, strict=True)
            )
            same_scale = abs(scale - declared[0]) <= 1e-5 * max(scale, declared[0])
            dtype = np.dtype(detail["dtype"]).name
            if (
                dtype != spec["dtype"]
                or not same_shape
                or not same_scale
                or (zero_point != declared[1])
            ):
                raise ModelError(
                    f"stage {self.name}: {key} is {dtype} {signature} scale {scale:.6g} zero point "
                    f"{zero_point} in the file, but {spec['dtype']} {spec['shape']} scale "
                    f"{declared[0]:.6g} zero point {declared[1]} in model.json: rebuild the pack"
                )
            code = (scale or 1.0, zero_point)
            tensors[key] = {**detail, "declared": tuple(spec["shape"]), "code": code}
        return tensors

    @property
    def delegated(self) -> int:
        """Number of partitions that XNNPACK runs; 1 is what a good int8 stage has."""
        return count_delegates(self._interpreter)

    @property
    def operators_outside(self) -> list[str]:
        """Names of the operators that no delegate runs, in the order of the graph."""
        nodes = self._interpreter._get_ops_details()
        original = [node for node in nodes if node["op_name"] != "DELEGATE"]
        producer = {int(t): node for node in original for t in node["outputs"]}
        inside: set[int] = set()
        for delegate in (node for node in nodes if node["op_name"] == "DELEGATE"):
            # The nodes a delegate replaced stay listed: walk back from its outputs to its inputs.
            borders = {int(t) for t in delegate["inputs"]}
            pending = [int(t) for t in delegate["outputs"]]
            while pending:
                tensor = pending.pop()
                node = producer.get(tensor)
                if tensor in borders or node is None or node["index"] in inside:
                    continue
                inside.add(node["index"])
                pending.extend(int(t) for t in node["inputs"] if t >= 0)
        return [node["op_name"] for node in original if node["index"] not in inside]

    def quantization(self, name: str) -> tuple[float, int]:
        """Return (scale, zero_point) of an input or output; (1.0, 0) if it is float32."""
        tensor = self._inputs.get(name) or self._tensor(name, self._outputs)
        return tensor["code"]  # type: ignore[no-any-return]

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Set the shapes of inputs, doing nothing where they are unchanged.

        Raises
        ------
        InputError
            A shape that the stage does not accept, or one with a 0 in it: an empty batch would
            end in an exception in one runtime and a crash of the process in another.
        """
        changed = False
        for name, shape in shapes.items():
            tensor = self._tensor(name, self._inputs)
            wanted = tuple(int(n) for n in shape)
            if wanted == self._shapes[name]:
                continue
            fits = len(wanted) == len(tensor["declared"]) and all(
                said is None or n == said
                for n, said in zip(wanted, tensor["declared"], strict=True)
            )
            if not fits or min(wanted) < 1:
                declared = ", ".join("any" if n is None else str(n) for n in tensor["declared"])
                raise InputError(
                    f"stage {self.name}: {name} has shape {wanted}: give ({declared}), every "
                    "number at least 1"
                )
            self._interpreter.resize_tensor_input(tensor["index"], wanted)
            self._shapes[name] = wanted
            changed = True
        if changed:
            self._views.clear()
            self._attempt(self._interpreter.allocate_tensors)

    def input(self, name: str) -> NDArray[Any]:
        """Return a writable view of an input, valid until the next :meth:`resize`.

        Filling it and calling :meth:`run` without that array saves a copy of the input.
        """
        return self._view(name, self._inputs)

    def run(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the stage, resizing it first where an array has another shape than last time.

        Parameters
        ----------
        **arrays : ndarray
            Inputs by name, of the tensor's dtype. An input left out keeps what :meth:`input` holds.

        Returns
        -------
        dict of str to ndarray
            Outputs by name: read-only views of the runtime's memory, valid until the next
            :meth:`run` or :meth:`resize`. Copy what must live longer.

        Raises
        ------
        InputError
            An array of the wrong dtype or shape, an empty batch included.
        ModelError
            The runtime failed.
        """
        for name, array in arrays.items():
            expected = np.dtype(self._tensor(name, self._inputs)["dtype"])
            if not isinstance(array, np.ndarray) or array.dtype != expected:
                found = getattr(array, "dtype", type(array).__name__)
                raise InputError(
                    f"stage {self.name}: {name} is {found}, not {expected}: quantize it"
                )
        self.resize({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self.input(name)[...] = array
        self._attempt(self._interpreter.invoke)
        return {name: self._view(name, self._outputs) for name in self._outputs}

    def _attempt(self, function: Any) -> None:
        try:
            function()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"stage {self.name} failed at {self._shapes}: {_first_line(error)}; "
                "check the pack with edgemask info"
            ) from error

    def _tensor(self, name: str, tensors: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        try:
            return tensors[name]
        except KeyError:
            known = ", ".join(tensors)
            raise InputError(f"stage {self.name} has no tensor {name!r}: it has {known}") from None

    def _view(self, name: str, tensors: Mapping[str, dict[str, Any]]) -> NDArray[Any]:
        key = name, tensors is self._outputs
        view = self._views.get(key)
        if view is None:
            view = tensor_view(self._interpreter, self._tensor(name, tensors)["index"])
            if tensors is self._outputs:
                view.flags.writeable = False
            if self._settled:
                self._views[key] = view
        return view


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(". ") or type(error).__name__
