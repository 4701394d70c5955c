"""Packaging of edgemask. The folder convert/ installs under the name edgemask_convert."""

from setuptools import find_packages, setup

convert = ["edgemask_convert"] + [
    f"edgemask_convert.{name}" for name in find_packages("convert")
]

setup(
    packages=["edgemask", *(f"edgemask.{name}" for name in find_packages("edgemask")), *convert],
    package_dir={"edgemask_convert": "convert"},
)
