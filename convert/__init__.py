"""The edgemask toolchain: from a COCO-format dataset to an int8 model pack.

Installed under the import name ``edgemask_convert``. Everything here runs on a
workstation with TensorFlow; the device only ever sees :mod:`edgemask`.
"""
