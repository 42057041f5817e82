#!/bin/bash
# Run examples/leaky.c and leaktop on it; the example ends with leaktop, however that ends.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p build
leaky=build/leaky
if [ ! -x "$leaky" ] || [ examples/leaky.c -nt "$leaky" ]; then
    echo "demo: compiling examples/leaky.c" >&2
    gcc -O1 -g -fno-omit-frame-pointer -Wall -Wextra -o "$leaky" examples/leaky.c
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "demo: tracing needs root: run make demo as root, or install sudo" >&2
        exit 3
    }
    # Ask for the password before the example runs, not under the screen.
    sudo -v
    as_root=(sudo)
fi

batch=()
[ -t 1 ] || batch=(--batch --iterations 3)

# The example asks the kernel to end it with its parent, which leaktop becomes.
"$leaky" </dev/null >/dev/null &
exec "${as_root[@]}" .venv/bin/leaktop -p $! "${batch[@]}" "$@"
