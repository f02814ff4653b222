#!/usr/bin/env bash
# Runs adaad on an NVIDIA GPU with the XLA plugin and the CUDA libraries of JAX's Python packages; no network is needed.
#
#   scripts/gpu.sh [--dry-run] COMMAND [ARGUMENT...]
#
# COMMAND is one of adaad's; --backend xla:cuda is added unless a backend is named. --dry-run prints what would be set
# and run. docs/gpu.md has the rest. Settings, by environment:
#
#   ADAAD           the program, built with -tags xla (default: adaad-xla beside this script's folder, else adaad on the
#                   PATH that has the backend, else it is built from source)
#   PYTHON          the Python that JAX is installed for (default: python3)
#   ADAAD_GPU_DIR   a folder for links and XLA's cache (default: ~/.cache/adaad/gpu)
#   ADAAD_XLA_CACHE 0 keeps no cache of how kernels are tuned
set -euo pipefail

die() {
    echo "gpu.sh: $*" >&2
    exit 1
}

dry=
if [[ ${1-} == --dry-run ]]; then
    dry=1
    shift
fi
[[ $# -gt 0 ]] || die "what to run is missing, such as: scripts/gpu.sh train --recipe adaad-cifar10-resnet18 --out runs/x"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
state=${ADAAD_GPU_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/adaad/gpu}

# The plugin is the one shared library of a package of JAX's.
command -v "$python" >/dev/null || die "there is no $python; name the Python that JAX is installed for in PYTHON"
package=$("$python" - <<'PYTHON'
import importlib.util
for name in ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"):
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is not None:
        print(list(spec.submodule_search_locations)[0])
        break
PYTHON
) || die "$python failed while it looked for JAX's CUDA plugin"
[[ -n $package ]] || die "$python has no JAX with a CUDA plugin (the packages jax-cuda13-pjrt or jax-cuda12-pjrt)"
plugin=
for file in "$package"/xla_cuda_plugin.so "$package"/*.so; do
    if [[ -f $file ]]; then
        plugin=$file
        break
    fi
done
[[ -n $plugin ]] || die "$package holds no shared library, expected xla_cuda_plugin.so"
nvidia=$(dirname "$(dirname "$package")")/nvidia

libraries=
for folder in "$nvidia"/*/lib; do
    if [[ -d $folder ]]; then
        libraries=$libraries$folder:
    fi
done

# XLA calls ptxas from there and reads libdevice.
cuda=
for folder in "${CUDA_HOME-}" "$nvidia/cu13" "$nvidia/cuda_nvcc" "$(dirname "$(dirname "$(command -v ptxas || echo /none/none)")")" /usr/local/cuda; do
    if [[ -n $folder && -x $folder/bin/ptxas ]]; then
        cuda=$folder
        break
    fi
done
[[ -n $cuda ]] || die "there is no bin/ptxas in $nvidia/cu13, $nvidia/cuda_nvcc, on the PATH or in /usr/local/cuda; set CUDA_HOME"

program=${ADAAD-}
if [[ -z $program && -x $root/adaad-xla ]]; then
    program=$root/adaad-xla
fi
if [[ -z $program ]] && command -v adaad >/dev/null && [[ $(adaad train --help) == *xla:cuda* ]]; then
    program=$(command -v adaad)
fi
build=
if [[ -z $program ]]; then
    command -v go >/dev/null || die "there is neither $root/adaad-xla nor Go to build it; carry one built with: CGO_ENABLED=1 go build -tags xla -ldflags '-s -w' -o adaad-xla ./cmd/adaad"
    program=$root/adaad-xla
    build=1
fi

flags=${XLA_FLAGS-}
if [[ $flags != *xla_gpu_cuda_data_dir* ]]; then
    flags="$flags --xla_gpu_cuda_data_dir=$cuda"
fi
if [[ ${ADAAD_XLA_CACHE-} != 0 && $flags != *autotune_cache_dir* ]]; then
    flags="$flags --xla_gpu_per_fusion_autotune_cache_dir=$state/autotune"
fi
set -- "$program" "$@"
case " $* " in
*" --backend"*) ;;
*) set -- "$@" --backend xla:cuda ;;
esac

# go-xla looks for the plugin by this name, and the plugin for the libraries in ../nvidia or ../../nvidia of where it lies.
links=(
    "$plugin" "$state/lib/plugins/pjrt_c_api_cuda_plugin.so"
    "$nvidia" "$state/lib/nvidia"
    "$nvidia" "$state/nvidia"
)
environment=(
    "PJRT_PLUGIN_LIBRARY_PATH=$state/lib/plugins"
    "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH-}"
    "CUDA_HOME=$cuda"
    "PATH=$cuda/bin:$PATH"
    "XLA_FLAGS=${flags# }"
    "GOMLX_NO_AUTO_INSTALL=1"
)

if [[ -n $dry ]]; then
    for ((i = 0; i < ${#links[@]}; i += 2)); do
        echo "link ${links[i + 1]} -> ${links[i]}"
    done
    printf 'set %s\n' "${environment[@]}"
    if [[ -n $build ]]; then
        echo "build $program"
    fi
    printf 'run'
    printf ' %q' "$@"
    echo
    exit
fi

compgen -G '/dev/nvidia*' >/dev/null || command -v nvidia-smi >/dev/null || die "there is no NVIDIA GPU here: neither /dev/nvidia* nor nvidia-smi"
if [[ -n $build ]]; then
    (cd "$root" && CGO_ENABLED=1 go build -tags xla -ldflags '-s -w' -o adaad-xla ./cmd/adaad)
fi
mkdir -p "$state/lib/plugins" "$state/autotune"
for ((i = 0; i < ${#links[@]}; i += 2)); do
    ln -sfn "${links[i]}" "${links[i + 1]}"
done
export "${environment[@]}"
# A small product tells whether the plugin, the libraries and the GPU go together before anything long begins.
"$program" bench --quiet --backend xla:cuda --time 1ms matrix 1024 >"$state/check.txt" 2>&1 ||
    die "a matrix product on the GPU failed; what it said is in $state/check.txt, and docs/gpu.md says what to try"
exec "$@"
