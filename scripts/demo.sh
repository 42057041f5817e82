#!/bin/bash
# Run examples/leaky.c and leaktop on it; the example ends with leaktop, however that ends. Where
# tracing is not permitted, say so and replay a recording of just that.
set -euo pipefail
cd "$(dirname "$0")/.."

leaktop=.venv/bin/leaktop
recording=examples/leaky.leaktop

batch=()
[ -t 1 ] || batch=(--batch --iterations 3)

replay() {
    printf 'demo: %s\ndemo: so this is a recording of it, %s\n' "$1" "$recording" >&2
    shift
    # Time to read that before the screen covers it.
    [ -t 1 ] && sleep 3
    exec "$leaktop" --replay "$recording" "${batch[@]}" "$@"
}

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || replay "tracing needs root, and there is no sudo" "$@"
    # Ask for the password before the example runs, not under the screen.
    sudo -v || replay "tracing needs root, and sudo refuses" "$@"
    as_root=(sudo)
fi

mkdir -p build
leaky=build/leaky
if [ ! -x "$leaky" ] || [ examples/leaky.c -nt "$leaky" ]; then
    echo "demo: compiling examples/leaky.c" >&2
    gcc -O1 -g -fno-omit-frame-pointer -Wall -Wextra -o "$leaky" examples/leaky.c
fi

# The example asks the kernel to end it with its parent, which leaktop becomes.
"$leaky" </dev/null >/dev/null &

# Whether this kernel, or container, permits it shows only when it is tried.
status=0
said=$("${as_root[@]}" "$leaktop" -p $! --batch --iterations 1 --delay 0.1 2>&1 >/dev/null) || status=$?
if [ "$status" = 3 ]; then
    kill $!
    replay "${said#leaktop: }" "$@"
fi

exec "${as_root[@]}" "$leaktop" -p $! "${batch[@]}" "$@"
