"""Keras definition of the student Mask R-CNN, one module per part."""

from .model import MaskRCNN, build_model

__all__ = ["MaskRCNN", "build_model"]
