"""The process that compiles BPF programs: the only importer of bcc.

Run as a script by leaktop/tracer/image.py, never imported: clang is large and leaks a little, so it
ends with this process. Reads a request from standard input, writes a reply to standard output:

    {"text", "flags": […], "headers": folder, "programs": [name, …]}
    {"maps": [{"descriptor", "name", "kind", "key_size", "value_size", "entries", "flags",
     "fields": […]}, …], "programs": {name: code in base64}}
    {"error": "no bcc" | "another bcc" | "not compiled", "text"}

The code names maps by their descriptors in this process.
"""

import base64
import ctypes
import json
import os
import sys
import tempfile
from typing import IO, Any

Reply = dict[str, Any]

# functions of libbcc whose types bcc does not tell ctypes, which then cuts pointers to 32 bits
_UNTYPED = {
    "bpf_num_tables": ctypes.c_size_t,
    "bpf_table_name": ctypes.c_char_p,
    "bpf_table_fd_id": ctypes.c_int,
    "bpf_table_key_size_id": ctypes.c_size_t,
    "bpf_table_leaf_size_id": ctypes.c_size_t,
}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    # what native code prints must not get into the reply
    replies = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        reply = _answer(request, said)
    json.dump(reply, replies)
    replies.flush()
    os._exit(0)  # clang's own clearing up takes a while


def _answer(request: Reply, said: IO[bytes]) -> Reply:
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    try:
        import bcc  # noqa: PLC0415
    except (ImportError, OSError) as error:  # OSError: libbcc.so, which it loads, is missing
        return {"error": "no bcc", "text": str(error)}
    if not hasattr(bcc, "BPF"):
        return {"error": "another bcc", "text": ""}
    try:
        module = bcc.BPF(text=request["text"], cflags=request["flags"])
    except Exception as error:
        said.seek(0)
        words = said.read(65536).decode(errors="replace")
        return {"error": "not compiled", "text": words, "exception": str(error)}
    programs = {
        name: base64.b64encode(module.dump_func(name.encode())).decode()
        for name in request["programs"]
    }
    lib = bcc.libbcc.lib
    for name, result in _UNTYPED.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_ulonglong], result
    maps = range(lib.bpf_num_tables(module.module, 0))
    return {"maps": [_map(lib, module.module, i) for i in maps], "programs": programs}


def _map(lib: Any, module: Any, i: int) -> Reply:
    name = lib.bpf_table_name(module, i)
    described = json.loads(lib.bpf_table_leaf_desc(module, name))
    # a structure is [name, [[field, type], …], "struct"], anything else a type's name
    fields = [field[0] for field in described[1]] if isinstance(described, list) else []
    return {
        "descriptor": lib.bpf_table_fd_id(module, i),
        "name": name.decode(),
        "kind": lib.bpf_table_type_id(module, i),
        "key_size": lib.bpf_table_key_size_id(module, i),
        "value_size": lib.bpf_table_leaf_size_id(module, i),
        "entries": lib.bpf_table_max_entries_id(module, i),
        "flags": lib.bpf_table_flags_id(module, i),
        "fields": fields,
    }


if __name__ == "__main__":
    main()
