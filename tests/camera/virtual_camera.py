"""Makes the real picamera2 accept libcamera's virtual camera, which is none of a Raspberry Pi."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

SIZE = (640, 480)


def prepare() -> ModuleType:
    """Return the module picamera2, ready to open the virtual camera."""
    import picamera2
    from picamera2.allocators import LibcameraAllocator

    camera = picamera2.Picamera2
    initialize = camera.__init__

    def initialize_virtual(self: Any, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        # Buffers of picamera2's own allocator have one plane, those of NV12 have two.
        self.allocator = LibcameraAllocator(self.camera)

    initialize_virtual.__signature__ = inspect.signature(initialize)  # type: ignore[attr-defined]
    camera.__init__ = initialize_virtual
    # The virtual camera answers the question for raw modes with an error instead of an empty list.
    camera._get_raw_modes = lambda self: [{"format": "NV12", "size": SIZE}]
    return picamera2
