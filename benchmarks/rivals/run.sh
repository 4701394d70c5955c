#!/usr/bin/env bash
# Compare edgemask with its rivals: one command, an environment of its own (about 8 GB with PyTorch).
#
#   benchmarks/rivals/run.sh [arguments of rivals.py]
#
# The environment and the exported networks are kept in EDGEMASK_RIVALS, by default
# ~/.cache/edgemask-rivals. ultralytics is under the AGPL: it is used there and is no part of
# edgemask.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${EDGEMASK_RIVALS:-${XDG_CACHE_HOME:-$HOME/.cache}/edgemask-rivals}
mkdir -p "$cache"
if [[ ! -e $cache/installed ]]; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install -q "$here/../.." ultralytics litert-torch ai-edge-quantizer onnx \
        onnxruntime onnxslim ncnn pnnx torchvision opencv-python-headless
    touch "$cache/installed"
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# Exporters leave files in the working directory.
(cd "$cache" && venv/bin/python "$here/export.py" "$cache/networks")
PYTHONPATH=$here/../.. "$cache/venv/bin/python" "$here/rivals.py" "$cache/networks" "$@"
