#!/bin/bash
# Make .venv ready to run leaktop; with "check", "test" or "bench" as argument for that too. Does
# only what is missing, and writes to standard error alone, so that `make demo` can be read from a
# pipe.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-run}
# The distribution's own interpreter: another one first in PATH (pyenv, conda) does not see bcc.
python=/usr/bin/python3

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

can_import() { "$1" -c "import $2" >/dev/null 2>&1; }
can_compile() { printf '#include <stdlib.h>\n' | gcc -x c -fsyntax-only - >/dev/null 2>&1; }
can_compile_cxx() { printf '#include <vector>\n' | g++ -x c++ -fsyntax-only - >/dev/null 2>&1; }

missing_allocators() {
    command -v musl-gcc >/dev/null || echo musl-tools
    local library
    for library in jemalloc.so.2:libjemalloc2 tcmalloc_minimal.so.4:libtcmalloc-minimal4 \
        mimalloc.so.2:libmimalloc2.0; do
        ldconfig -p | grep -qF "lib${library%%:*}" || echo "${library#*:}"
    done
}

missing_rivals() {
    local rival
    for rival in memleak-bpfcc:bpfcc-tools heaptrack:heaptrack valgrind:valgrind sqlite3:sqlite3; do
        command -v "${rival%%:*}" >/dev/null || echo "${rival#*:}"
    done
}

# What has to come from the distribution, by Debian's names, one a line.
missing_packages() {
    [ -x "$python" ] || echo python3
    can_import "$python" "ensurepip, venv" || echo python3-venv
    can_import "$python" bcc || echo python3-bpfcc
    can_compile || printf '%s\n' gcc libc6-dev
    # Some tests are about C++ names.
    case $purpose in test | bench) can_compile_cxx || echo g++ ;; esac
    # Others are about other allocators, and other languages.
    [ "$purpose" != test ] || missing_allocators
    [ "$purpose" != test ] || command -v rustc >/dev/null || echo rustc
    # And about debug information that several files share.
    [ "$purpose" != test ] || command -v dwz >/dev/null || echo dwz
    # And exports are read back with other tools' schemas.
    [ "$purpose" != test ] || command -v protoc >/dev/null || echo protobuf-compiler
    # What leaktop has to bear beside it, and is measured against.
    [ "$purpose" != test ] || command -v memleak-bpfcc >/dev/null || echo bpfcc-tools
    [ "$purpose" != bench ] || missing_rivals
}

install_with_apt() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "run this as root, then try again: apt-get install $*"
        as_root=(sudo)
    fi
    say "installing $* with apt"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    local log
    "${apt[@]}" update >&2 || say "apt-get update failed; going on with the package lists at hand"
    # dpkg tells of every package; that is of interest only where it fails.
    log=$("${apt[@]}" install -y --no-install-recommends "$@" 2>&1) || {
        printf '%s\n' "$log" >&2
        die "apt-get install failed; see its message above, put it right and try again"
    }
}

# Elsewhere the packages have other names, and installing them is the user's to do.
name_packages_and_stop() {
    local like
    like=$(. /etc/os-release 2>/dev/null && echo " ${ID:-} ${ID_LIKE:-} ")
    case $like in
        *" fedora "* | *" rhel "*) die "missing ($*); install: dnf install python3 python3-bcc gcc gcc-c++" ;;
        *" arch "*) die "missing ($*); install: pacman -S python python-bcc gcc" ;;
        *) die "missing (Debian's names: $*); install them, bcc's Python package above all" ;;
    esac
}

ensure_system_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} = 0 ] && return
    if command -v apt-get >/dev/null; then
        install_with_apt "${missing[@]}"
    else
        name_packages_and_stop "${missing[@]}"
    fi
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} = 0 ] || die "still missing after the installation: ${missing[*]}"
}

ensure_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "leaktop needs Python 3.11 or later; $python is $("$python" -V). Debian 12 and Ubuntu 24.04 have it"
    if [ -e .venv ]; then
        [ -w .venv ] || die ".venv belongs to another user; remove it (sudo rm -rf .venv) and try again"
        if .venv/bin/python -c 'import bcc, pip' >/dev/null 2>&1; then
            return
        fi
        say ".venv does not see the system's packages (bcc): building it anew"
    else
        say "building .venv"
    fi
    "$python" -m venv --clear --system-site-packages .venv >&2 || die "cannot build .venv; see above"
}

ensure_python_packages() {
    local stamp=.venv/setup.stamp what=. wants
    [ "$purpose" = run ] || what='.[dev]'
    wants="$PWD $(cat pyproject.toml constraints.txt | sha256sum)"
    # What is enough to develop is enough to run.
    if grep -qsxF -e ".[dev] $wants" -e "$what $wants" "$stamp"; then
        return
    fi
    say "installing leaktop and the Python packages it needs into .venv"
    rm -f "$stamp"
    .venv/bin/python -m pip install -qq --disable-pip-version-check \
        --constraint constraints.txt --editable "$what" >&2 ||
        die "pip failed; see its message above (it needs a package index or a mirror of one)"
    echo "$what $wants" >"$stamp"
}

ensure_system_packages
ensure_venv
ensure_python_packages
