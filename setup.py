"""Packaging of edgemask. The folder convert/ installs under the name edgemask_convert.

Everything else is in pyproject.toml; only a mapping of folders to packages cannot be said there
without naming every package.
"""

from setuptools import find_packages, setup

FOLDERS = {"edgemask": "edgemask", "edgemask_convert": "convert"}

setup(
    packages=[
        package
        for name, folder in FOLDERS.items()
        for package in (name, *(f"{name}.{inner}" for inner in find_packages(folder)))
    ],
    package_dir=FOLDERS,
)
