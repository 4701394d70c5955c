"""Stands for python3-kms++, which a Pi has and whose names picamera2 reads when it is imported.

Only its preview window on a screen without a desktop would use them.
"""


class _AnyName:
    def __getattr__(self, name: str) -> str:
        return name


PixelFormat = _AnyName()
