#!/bin/sh
# Measures rp.h beside its peers, each pair in turns within one process: matrix products and an SGD step on OpenBLAS, an
# SGD step of FANN, the steps of PyTorch; then whole programs. What is not installed is said and left out.
#
#     compare.sh [SECONDS]     for each part; default 20
#
# Debian has the C peers: libopenblas-dev libfann-dev hyperfine. PyTorch: python3 -m venv build/venv &&
# build/venv/bin/pip install torch; another Python that has it: PYTHON=... compare.sh
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-20}
python=${PYTHON:-build/venv/bin/python}
cc=${CC:-cc}
out=${BUILD:-build}/bench/peers
mkdir -p $out

heading() { printf '\n== %s (load %s)\n' "$1" "$(cut -d ' ' -f 1-2 /proc/loadavg)"; }
missing() { printf '\n!! NOT MEASURED: %s\n' "$1"; }
has() { printf '#include <%s>\n' "$1" | $cc -E - >/dev/null 2>&1; } # a header

if has cblas.h; then
    heading "OpenBLAS, one thread"
    vectoriser=$(command -v gcc || echo "$cc") # of tanhf and expf
    $vectoriser -O3 -march=native -ffast-math -c bench/peers/blas_step.c -o $out/blas_step.o
    $cc -O2 bench/peers/blas.c $out/blas_step.o -o $out/blas -lopenblas -lm
    # Debian's takes processors that it does not know for older ones; the first line of what follows says for which.
    if [ -z "${OPENBLAS_CORETYPE:-}" ] && grep -qw avx512bw /proc/cpuinfo; then export OPENBLAS_CORETYPE=SkylakeX; fi
    OPENBLAS_NUM_THREADS=1 $out/blas "$seconds"
else missing "OpenBLAS (libopenblas-dev)"; fi

if has fann.h; then
    heading "FANN"
    $cc -O2 bench/peers/fann.c -o $out/fann -lfann -lm
    $out/fann "$seconds"
else missing "FANN (libfann-dev)"; fi

if "$python" -c 'import torch' 2>/dev/null; then
    heading "PyTorch"
    $cc -O2 -shared -fPIC bench/peers/ours.c -o $out/ours.so -lm -lpthread
    "$python" -W ignore bench/peers/torch_step.py $out/ours.so --seconds "$seconds" 2>$out/torch.log || {
        cat $out/torch.log
        exit 1
    }
    heading "curvature, PyTorch"
    "$python" -W ignore bench/peers/torch_curvature.py $out/ours.so --seconds "$seconds"
else missing "PyTorch ($python cannot import torch)"; fi

if "$python" -c 'import torch, safetensors' 2>/dev/null; then
    heading "files: 100 million parameters, by rp.h and by the safetensors package"
    $cc -O2 bench/files.c -o $out/files -lm
    $out/files $out
    "$python" bench/peers/files.py $out
    rm -f $out/*.safetensors
else missing "files (safetensors)"; fi

if ! command -v hyperfine >/dev/null; then missing "whole programs (hyperfine)"
elif "$python" -c 'import torch' 2>/dev/null; then
    heading "whole programs: from start to a trained classifier"
    $cc -O2 bench/peers/digits.c -o $out/digits -lm
    $out/digits --draw $out/digits.raw
    adam="$out/digits $out/digits.raw adam" rp="$out/digits $out/digits.raw rp"
    torch="$python bench/peers/digits.py $out/digits.raw"
    for program in "$adam" "$rp" "$torch"; do printf '%s: %s\n' "$program" "$($program)"; done
    hyperfine --style none --warmup 1 --export-json $out/digits.json -n ours_adam "$adam" -n ours_rp "$rp" \
        -n torch "$torch" -n torch_import "$python -c 'import torch'" >/dev/null
    "$python" - $out/digits.json <<'END'
import json, sys
ms = {r["command"]: 1e3 * r["median"] for r in json.load(open(sys.argv[1]))["results"]}
print(*(f"{name}_ms={time:.0f}" for name, time in ms.items()))
for ours in "ours_adam", "ours_rp":
    without = ms["torch"] - ms["torch_import"]
    print(f"whole {ours} ratio={ms['torch'] / ms[ours]:.1f} ratio_without_import={without / ms[ours]:.1f}")
END
fi
