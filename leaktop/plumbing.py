"""Which functions only allocate for others: what a reader of a stack passes over.

A name is plumbing, whatever its parameters and template arguments, where it is

======================  ========================================================================
an allocator's own      ``malloc`` and kin under the prefixes of glibc, jemalloc, tcmalloc,
                        mimalloc and musl; ``operator new`` and ``delete``; ``mmap`` and kin
a wrapper around it     ``xmalloc``, ``g_malloc``, ``OPENSSL_malloc``, ``sqlite3_malloc``,
                        CPython's ``PyMem_``, ``PyObject_Malloc``, ``_PyObject_GC_New``, …
of the C library        ``strdup``, ``asprintf``, ``getline``, ``fopen``, ``opendir`` and inner
                        functions of theirs (``_IO_…``)
of the C++ runtime      everything in ``std::``, ``__gnu_cxx::``, ``__cxxabiv1::``
a container's, C++      ``boost::`` containers and smart pointers, ``absl::`` containers and
                        their ``…_internal``, ``folly::`` vectors, strings and maps, ``eastl::``,
                        ``llvm::`` containers, ``google::protobuf::`` arenas and fields, ``fmt::``
Qt's                    containers, strings and shared data: ``QList``, ``QHash``,
                        ``QString``, ``QArrayData``, ``QtPrivate::``, …
GLib's                  ``g_strdup…``, ``g_array_…``, ``g_hash_table_…``, ``g_slice_…``, …
Rust's                  everything in ``std::``, ``hashbrown::``, much of ``alloc::``, ``core::``,
                        ``__rust_alloc`` and kin; ``<T as Trait>::f`` where ``T`` is of these,
                        or a primitive under a trait of these
Go's                    everything in ``runtime.`` and ``runtime/``, and what cgo puts between
the kernel's own        ``kmalloc``, ``vmalloc``, ``kmem_cache_alloc``, ``mempool_alloc``,
                        ``alloc_pages``, ``folio_alloc``, ``pcpu_alloc``, ``alloc_skb`` and kin,
                        with any prefix of ``_`` and any suffix; ``kstrdup``, ``kmemdup``; of page
                        tables ``pte_alloc``, ``pud_alloc``, …; ``bpf_map_area_alloc`` and kin
======================  ========================================================================

Where a stack names functions of Python, JavaScript or Java (perf maps), the runtime itself is
plumbing, too: the interpreter's own functions, told by their file, its built-in libraries, and
stubs that it made.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from leaktop import jitnames
from leaktop.model import Frame
from leaktop.names import qualified_name

_ALLOCATOR = (
    r"(?:__libc_|__GI_|__GI___libc_|je_|jemalloc_|tc_|mi_|__|_+)?"
    r"(?:malloc|calloc|realloc|reallocarray|free|memalign|aligned_alloc|posix_memalign|valloc|"
    r"pvalloc|strdup|strndup|mmap|mmap64|mremap|munmap)"
    r"(?:_default|_impl|_internal)?"
    r"|tcmalloc::.*|mi_(?:heap_|theap_|_)?(?:m|z|c|re|rec)alloc\w*|operator (?:new|delete)(?:\[\])?"
    # where a page is touched first: in the allocator's own depths, and as memory is filled
    r"|(?:__)?s?brk(?:_call)?|__(?:default_|glibc_)morecore"
    r"|(?:sysmalloc|_int_(?:malloc|realloc|memalign|free)|tcache_init|systrim|arena_get2)[\w.]*"
    r"|(?:__)?mem(?:set|p?cpy|move)(?:_\w+)?"
    r"|_Z(?:n[wa]m|d[la]Pv)\w*|__cxa_allocate_(?:dependent_)?exception|allocate_dtv|_dl_allocate_tls"
)
_WRAPPER = (
    # those that end the process or count on failure, and add no meaning
    r"(?:x|xx|g_|g_try_|g_slice_|OPENSSL_|CRYPTO_|sqlite3_?|PyMem_(?:Raw)?|PyObject_|_PyMem_Raw)"
    r"(?:[mMcC]alloc0?|[rR]ealloc|zalloc|strdup|alloc0?|Malloc|Calloc|Realloc|malloc_n|calloc_n)"
    r"|_PyMem_\w+|_PyObject_(?:Malloc|Calloc|Realloc|GC_\w+|New\w*|Arena\w*)|_?PyObject_GC_\w+"
    r"|(?:_?PyType_(?:Generic)?Alloc\w*|gc_alloc|pymalloc_alloc|new_arena|allocate_from_new_pool)"
)
_C_LIBRARY = (
    r"(?:__)?v?asprintf(?:_chk|_internal)?|__vasprintf_internal|(?:_IO_)?get(?:line|delim)|wcsdup"
    r"|(?:__)?(?:f(?:re)?open|fdopen|fmemopen|open_memstream|opendir)(?:64|_internal)?|_IO_\w+"
    r"|__(?:opendir\w*|alloc_dir|fopen_maybe_mmap)"
)
_CXX = (
    r"(?:std|__gnu_cxx|__cxxabiv1|eastl|fmt)::.*"
    r"|boost::(?:container|unordered|intrusive|detail|move_detail|multi_index|circular_buffer\w*"
    r"|make_shared|allocate_shared|shared_ptr|scoped_ptr|function\w*|any|variant|optional|pool\w*)\b.*"
    r"|absl::(?:\w+_internal|(?:flat|node)_hash_(?:map|set)|btree_\w+|InlinedVector|FixedArray|Cord"
    r"|Str(?:Cat|Append|Join|Split|Format))\b.*"
    r"|folly::(?:(?:fb|small_|basic_fb)\w*|F14\w+|f14|detail|IOBuf)\b.*"
    r"|llvm::(?:SmallVector|SmallPtrSet|DenseMap|DenseSet|StringMap|BumpPtrAllocator|safe_\w*alloc"
    r"|allocate_buffer|MallocAllocator|Allocator)\w*.*"
    r"|google::protobuf::(?:internal|Arena|RepeatedField|RepeatedPtrField|Map)\b.*"
)
_QT = (
    r"Qt(?:Private|SharedPointer|MetaContainerPrivate)::.*|QHashPrivate::.*"
    r"|Q(?:ArrayData|ArrayDataOps|TypedArrayData|ArrayDataPointer|GenericArrayOps|List|ListData"
    r"|Vector|VarLengthArray|LinkedList|Stack|Queue|Hash|HashData|MultiHash|Map|MapData|MapDataBase"
    r"|MapNode|MapNodeBase|MultiMap|Set|String|StringBuilder|StringList|ByteArray|Buffer"
    r"|SharedPointer|SharedData|SharedDataPointer|ScopedPointer|Variant)(?:::.*)?"
)
_GLIB = (
    r"g_(?:str(?:n?dup|concat|join|split)\w*|slist_\w+|list_\w+|queue_\w+|(?:ptr_|byte_)?array_\w+"
    r"|string_\w+|hash_table_\w+|slice_\w+|memdup2?|aligned_alloc\w*|object_new\w*"
    r"|type_create_instance|malloc\w*|realloc\w*|try_\w*alloc\w*)"
)
# C++ programs have name spaces called core and alloc, too: Rust's are told by their modules.
_RUST_SPACE = (
    r"(?:(?:std|hashbrown|indexmap|smallvec)|(?:alloc|core)::(?:alloc|any|array|ascii|borrow|boxed"
    r"|cell|char|clone|cmp|collections|convert|default|error|ffi|fmt|future|hash|hint|intrinsics"
    r"|iter|marker|mem|net|num|ops|option|panic|panicking|pin|ptr|raw_vec|rc|result|slice|str"
    r"|string|sync|task|time|unicode|vec))::"
)
_RUST = (
    rf"{_RUST_SPACE}.*|\[\w+\]::.*|<[&*\[(]*(?:mut |const |dyn )?{_RUST_SPACE}.*"
    rf"|<[&*\[(]*(?:mut )?\w+\W*(?:;[^>]*)? as {_RUST_SPACE}.*"
    r"|_*(?:__)?(?:rust|rg|rdl)_(?:re)?alloc\w*|exchange_malloc|.*___rust_(?:re)?alloc\w*"
)
_GO = r"runtime[./].*|_cgo_\w+|_cgoexp_\w+|x_cgo_\w+|crosscall\w*|_Cfunc_\w+"
# told from functions of programs by their names alone, which are in the kernel's style
_KERNEL = (
    r"_*(?:k[vz]?[mzc]alloc|k[vz]?realloc|kv?memdup|kstrn?dup|v?memdup_user|strndup_user"
    r"|v[mzc]alloc|get_vm_area|alloc_vmap_area|mempool_alloc|kmem_cache_alloc|slab_alloc"
    r"|(?:new|allocate)_slab|alloc_slab_obj_exts|alloc_(?:frozen_)?pages?|get_free_pages"
    r"|get_zeroed_page|(?:vma_|filemap_|folio_)?alloc_folio|(?:filemap_|vma_)?folio_alloc"
    r"|vma_alloc_(?:zeroed_movable_)?folio|filemap_alloc_folio|pcpu_alloc|alloc_percpu"
    r"|(?:napi_|netdev_|sock_)?alloc_(?:send_p?)?skb|sock_wmalloc|p(?:g|4|u|m)d_alloc|pte_alloc"
    r"|bpf_map_(?:area_alloc|kmalloc|kzalloc|kvcalloc|alloc_percpu|alloc_pages))"
    r"(?:_\w+)?"
)

_RUNTIME_FILE = re.compile(
    r"(?:lib)?python\d[\d.]*\w?(?:\.so.*)?|node(?:js)?|libnode\.so.*|libjvm\.so|libcoreclr\.so"
)
_RUNTIME_SOURCE = ("node:", "<frozen ")  # of libraries built in
_RUNTIME_STUB = re.compile(
    r"(?:Builtin|BytecodeHandler|Handler|Stub|RegExp):.*|Interpreter|call_stub|StubRoutines.*",
    re.DOTALL,
)


@lru_cache(maxsize=1)
def _plumbing() -> re.Pattern[str]:
    # takes the time of a dozen imports: not before a name is there
    parts = (_ALLOCATOR, _WRAPPER, _C_LIBRARY, _CXX, _QT, _GLIB, _RUST, _GO, _KERNEL)
    return re.compile("|".join(parts), re.DOTALL)


@lru_cache(maxsize=16384)
def is_plumbing(symbol: str) -> bool:
    """Tell whether a demangled function name only allocates for others; see the table above."""
    name = qualified_name(symbol).partition("@plt")[0]
    return _plumbing().fullmatch(name) is not None


def frame_that_matters(frames: Sequence[Frame]) -> Frame:
    """Return the frame that a reader looks for: the innermost one that is no plumbing.

    Where every named frame is plumbing, the innermost named one; without names the innermost; for
    an empty stack a frame at address 0.
    """
    named = None
    managed = any(frame.module in jitnames.MODULES for frame in frames)
    for frame in frames:
        if frame.symbol is None:
            continue
        if not is_plumbing(frame.symbol) and not (managed and _is_runtime(frame)):
            return frame
        named = named or frame
    return named or (frames[0] if frames else Frame(0))


def _is_runtime(frame: Frame) -> bool:
    if frame.module in jitnames.MODULES:
        own = (frame.file or "").startswith(_RUNTIME_SOURCE)
        return own or _RUNTIME_STUB.fullmatch(frame.symbol or "") is not None
    return _RUNTIME_FILE.fullmatch(frame.module or "") is not None
