#!/usr/bin/env bash
# Put all that is needed to run edgemask's wheel on emulated ARM cores into a folder:
#
#   benchmarks/arm64/setup.sh FOLDER
#
# root/  Debian 12 for arm64: Python 3.11 and the C libraries, unpacked and never booted
# site/  the wheel of this source tree and the aarch64 wheels that it depends on
# qemu10 (Debian 13): fast; counting is done by Debian 12's qemu 7, which loads plugins
#
# Needs Debian 12 on x86-64 and, for apt-get, root. No chroot, no second stage, no binfmt: qemu maps
# the paths below root/, everything else is the host's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(cd "$here/../.." && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
cd "$work"

if ! (hash qemu-aarch64 && hash mmdebstrap && hash gcc) 2>/dev/null; then
    apt-get -q -o DPkg::Lock::Timeout=600 update
    DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 install \
        --no-install-recommends qemu-user mmdebstrap arch-test gcc libc6-dev
fi

if [[ ! -d root ]]; then
    # "extract" runs no maintainer script: seconds in place of many minutes under emulation.
    mmdebstrap --quiet --variant=extract --architectures=arm64 \
        --include=python3.11,libpython3.11-stdlib,libstdc++6 bookworm root.new
    mv root.new root
fi

if [[ ! -x qemu10 ]]; then
    mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$key] http://deb.debian.org/debian trixie main" >apt/sources.list
    options=(-q -o "Dir::Etc::SourceList=$work/apt/sources.list" -o "Dir::Cache=$work/apt/cache"
        -o "Dir::Etc::SourceParts=$work/apt/parts" -o "Dir::State::Lists=$work/apt/lists"
        -o "APT::Sandbox::User=root")
    apt-get "${options[@]}" update
    (cd apt && apt-get "${options[@]}" download qemu-user)
    dpkg -x apt/qemu-user_*.deb apt/unpacked
    mv apt/unpacked/usr/bin/qemu-aarch64 qemu10
    rm -r apt
fi

gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o insncount.so "$here/insncount.c"

# A copy, because building leaves files in the tree.
rm -rf source dist
mkdir source
(cd "$source_tree" && tar c --exclude=__pycache__ edgemask convert setup.py pyproject.toml \
    MANIFEST.in README.md LICENSE NOTICE) | tar x -C source
python3 -m pip wheel -q --no-deps --wheel-dir dist ./source
platforms=()
for glibc in 2014 _2_17 _2_27 _2_28; do platforms+=(--platform "manylinux${glibc}_aarch64"); done
target=(--only-binary=:all: --python-version 3.11 --implementation cp "${platforms[@]}")
# The dependencies stay where they are if they are there; edgemask itself is always replaced.
if [[ ! -d site/numpy ]]; then python3 -m pip install -q "${target[@]}" --target site dist/*.whl; fi
rm -rf site/edgemask site/edgemask_convert site/edgemask-*.dist-info
python3 -m pip install -q --no-deps "${target[@]}" --target site.new dist/*.whl
cp -r site.new/. site && rm -rf site.new source
