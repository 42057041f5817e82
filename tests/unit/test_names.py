"""Names for narrow screens, and the table of plumbing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.model import Frame
from leaktop.names import qualified_name, short_name
from leaktop.plumbing import frame_that_matters, is_plumbing

STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >"


@pytest.mark.parametrize(
    ("symbol", "short"),
    [
        ("main", "main"),
        ("foo(int)", "foo"),
        ("std::vector<int, std::allocator<int> >::push_back(int&&)", "std::vector<…>::push_back"),
        (
            "void std::vector<Foo<Bar<int> > >::_M_realloc_insert<Foo<Bar<int> > >(Foo&&)",
            "std::vector<…>::_M_realloc_insert<…>",
        ),
        (f"{STRING}::_M_create(unsigned long&, unsigned long)", "std::string::_M_create"),
        (f"Registry<{STRING} >::add({STRING} const&) const", "Registry<…>::add"),
        ("std::__1::basic_string<wchar_t>::f()", "std::wstring::f"),
        ("absl::lts_20230125::InlinedVector<int, 4ul>::grow()", "absl::InlinedVector<…>::grow"),
        ("name[abi:cxx11](int)", "name"),
        ("std::operator<< <std::char_traits<char> >(std::ostream&)", "std::operator<< <…>"),
        ("Matrix::operator<(Matrix const&)", "Matrix::operator<"),
        ("Matrix::operator->() const", "Matrix::operator->"),
        ("Matrix<int>::operator()(int) const", "Matrix<…>::operator()"),
        ("Matrix::operator[](int)", "Matrix::operator[]"),
        ("Foo::operator unsigned int() const", "Foo::operator unsigned int"),
        ("operator new(unsigned long)", "operator new"),
        ("operator new[](unsigned long, std::align_val_t)", "operator new[]"),
        ("(anonymous namespace)::load(std::vector<int>)", "(anonymous namespace)::load"),
        ("bool (anonymous namespace)::is<int>(int)", "(anonymous namespace)::is<…>"),
        ("main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"),
        ("auto main::'lambda'(int)::operator()(int) const", "main::'lambda'::operator()"),
        ("void std::sort<A<f()::{lambda()#1}::operator()() const::B> >(int)", "std::sort<…>"),
        ("std::unique_ptr<Foo> make_foo(int (*)(char))", "make_foo"),
        ("A<(1>2)>::f()", "A<…>::f"),
        ("void f<int>(A<int>)::{lambda()#1}::operator()() const", "f<…>::{lambda()#1}::operator()"),
        ("A::f(int) const::{lambda(int)#1}::_FUN(int)", "A::f::{lambda(int)#1}::_FUN"),
        (
            "(anonymous namespace)::f(int)::(anonymous class)::g",
            "(anonymous namespace)::f::(anonymous class)::g",
        ),
        ("int (*get_handler(int))(char)", "get_handler"),
        (
            "void (*std::for_each<int*, void (*)(int)>(int*, void (*)(int)))(int)",
            "std::for_each<…>",
        ),
        ("A::operator int (*)(char)() const", "A::operator int (*)(char)"),
        ("f<int>(int) requires C<int>", "f<…>"),
        ("std::filesystem::__cxx11::path::path()", "std::filesystem::path::path"),
        (
            STRING.replace("string", "stringstream") + "::str() const",
            "std::stringstream::str",
        ),
        ("std::basic_ifstream<char, std::char_traits<char>>::open()", "std::ifstream::open"),
        (
            f"std::_Hashtable<{STRING}, std::pair<{STRING} const, int>, std::hash<{STRING} >, "
            "std::__detail::_Hashtable_traits<true, false, true> >::_M_rehash(unsigned long)",
            "std::_Hashtable<…>::_M_rehash",
        ),
        (f"std::map<int, {STRING} >::operator[](int const&)", "std::map<…>::operator[]"),
        ("std::function<void (int)>::operator()(int) const", "std::function<…>::operator()"),
        ("foo(int) [clone .cold]", "foo"),
        ("foo(int) (.cold.1)", "foo"),
        ("foo.isra.0.cold", "foo"),
        ("alloc::vec::Vec<T,A>::push::h0123456789abcdef", "alloc::vec::Vec<…>::push"),
        ("foo::main::{{closure}}::h0123456789abcdef", "foo::main::{{closure}}"),
        ("foo[1a2b3c4d5e6f7081]::bar::{closure#0}", "foo::bar::{closure#0}"),
        ("<foo::Bar<i32> as foo::Make<u8>>::go::<u8>", "<foo::Bar<…> as foo::Make<…>>::go::<…>"),
        (
            "<alloc::vec::Vec<T,A> as core::ops::drop::Drop>::drop",
            "<alloc::vec::Vec<…> as core::ops::drop::Drop>::drop",
        ),
        (
            "core::ops::function::FnOnce::call_once{{vtable.shim}}::h0123456789abcdef",
            "core::ops::function::FnOnce::call_once{{vtable.shim}}",
        ),
        ("<impl foo::Bar for Baz<T>>::qux", "<impl foo::Bar for Baz<…>>::qux"),
        ("a::<impl foo::Bar for Baz<T>>::f::<u8>", "a::<impl foo::Bar for Baz<…>>::f::<…>"),
        ("alloc::slice::<impl [T]>::to_vec", "alloc::slice::<impl [T]>::to_vec"),
        ("<dyn foo::Tr>::go", "<dyn foo::Tr>::go"),
        ("<alloc::raw_vec::RawVec<u8>>::grow_one", "alloc::raw_vec::RawVec<…>::grow_one"),
        (
            "<<a::Once>::call<u8>::{closure#0} as a::Fn<()>>::go",
            "<a::Once::call<…>::{closure#0} as a::Fn<…>>::go",
        ),
        ("github.com/foo/bar/pkg.(*T).Method", "pkg.(*T).Method"),
        ("net/http.(*conn).serve", "net/http.(*conn).serve"),
        # as runtimes give them
        ("JS:~append node:internal/list:30:16", "JS:~append node:internal/list:30:16"),
        ("LazyCompile:*foo /path/file.js:10:5", "LazyCompile:*foo /path/file.js:10:5"),
        ("Lcom/foo/Bar;::method", "Lcom/foo/Bar;::method"),
        ("go.<locals>.<lambda>", "go.<locals>.<lambda>"),
        ("<module>", "<module>"),
        # not understood
        ("f(", "f("),
        ("a<b<c", "a<b<c"),
        ("", ""),
        ("<" * 5000, "<" * 5000),
    ],
)
def test_short_name(symbol: str, short: str) -> None:
    assert short_name(symbol) == short


def test_template_arguments_stay_where_there_is_room() -> None:
    symbol = "void Cache<int, char>::put(int) const"
    assert short_name(symbol, 21) == "Cache<int, char>::put"
    assert short_name(symbol, 20) == "Cache<…>::put"
    assert qualified_name(symbol) == "Cache::put"


def test_template_arguments_that_are_the_usual_ones_need_no_room() -> None:
    pairs = f"std::allocator<std::pair<int const, {STRING} > >"
    symbol = f"std::map<int, {STRING}, std::less<int>, {pairs} >::at(int const&)"
    assert short_name(symbol, 40) == "std::map<int, std::string>::at"
    assert short_name("std::unique_ptr<A, std::default_delete<A> >::reset(A*)", 40) == (
        "std::unique_ptr<A>::reset"
    )
    assert short_name("f<A, std::allocator<int>::B>()", 40) == "f<A, std::allocator<int>::B>"


@settings(deadline=None)
@given(st.text(alphabet="ab:<>()[]{} *&~-.,#operator_ZasNVh0_@/", max_size=4096))
def test_any_text_has_a_short_name(symbol: str) -> None:
    assert len(short_name(symbol)) <= len(symbol) + 4
    assert bool(short_name(symbol)) == bool(symbol)
    is_plumbing(symbol)


PLUMBING = """
__rust_alloc
__rdl_alloc
_RNvCs691rhTbG0Ee_7___rustc12___rust_alloc
alloc::raw_vec::RawVec<T,A>::reserve::do_reserve_and_handle
<alloc::vec::Vec<T> as core::iter::traits::collect::Extend<&T>>::extend
<&mut alloc::vec::Vec<T> as std::io::Write>::write
<[T] as alloc::slice::hack::ConvertVec>::to_vec
<str as alloc::string::ToString>::to_string
core::ops::function::FnOnce::call_once{{vtable.shim}}
<alloc::alloc::Global>::alloc_impl_runtime
<[u8]>::to_vec::<alloc::alloc::Global>
hashbrown::raw::RawTable<T,A>::reserve_rehash
runtime.mallocgc
runtime.main
QList<int>::append(int const&)
QArrayData::allocate(unsigned long, unsigned long)
QHashPrivate::Data<X>::rehash
boost::container::vector<int>::push_back
boost::unordered::detail::table<x>::reserve()
absl::lts_20220623::container_internal::raw_hash_set<int>::resize(unsigned long)
absl::flat_hash_map<int,int>::operator[](int)
folly::fbvector<int>::reserve(unsigned long)
llvm::SmallVectorBase<unsigned>::grow_pod(void*)
google::protobuf::internal::ArenaStringPtr::Set(int)
tcmalloc::allocate_full_malloc_oom(unsigned long)
g_hash_table_insert
g_strdup_printf
malloc@plt
getline
__vasprintf_internal
_IO_file_doallocate
fopen64
_PyObject_GC_NewVar
PyObject_Malloc
void* std::__1::__libcpp_allocate[abi:v15000](unsigned long)
operator new[](unsigned long)
_Znwm
__kmalloc_node_track_caller_noprof
kmalloc_trace
__kvmalloc_node_noprof
kmem_cache_alloc_lru
___slab_alloc.isra.0
__alloc_frozen_pages_noprof
alloc_pages_mpol
vma_alloc_folio_noprof
folio_alloc_noprof
__vmalloc_node_range_noprof
__get_free_pages
get_zeroed_page_noprof
pcpu_alloc_noprof
__alloc_skb
sock_alloc_send_pskb
pte_alloc_one
__pmd_alloc
__bpf_map_area_alloc
kmemdup_noprof
""".strip().splitlines()

MEANT = """
main.main
runtimex.f
QApplication::exec()
MyQList::x
<myapp::Foo as core::clone::Clone>::clone
<myapp::Foo<alloc::vec::Vec<u8>> as core::clone::Clone>::clone
core::Engine::load()
alloc_buffer
boost::asio::io_context::run()
absl::Status::f
g_main_loop_run
fopener
_PyEval_EvalFrameDefault
PyList_Append
pipe_resize_ring
alloc_file_pseudo
do_anonymous_page
alloc_empty_file
vm_area_alloc
skb_clone
folly::Future<int>::then
JS:~malloc /a.js:1:1
""".strip().splitlines()


@pytest.mark.parametrize("symbol", PLUMBING)
def test_plumbing(symbol: str) -> None:
    assert is_plumbing(symbol)


@pytest.mark.parametrize("symbol", MEANT)
def test_what_a_reader_looks_for(symbol: str) -> None:
    assert not is_plumbing(symbol)


def test_python_functions_matter_more_than_the_interpreter() -> None:
    stack = [
        Frame(1, "libc.so.6", "malloc"),
        Frame(2, "libpython3.12.so.1.0", "PyByteArray_Resize"),
        Frame(3, "python3.12d", "_PyEval_EvalFrameDefault"),
        Frame(4, "[python]", "Cache.put"),
        Frame(5, "libpython3.12.so.1.0", "_PyEval_EvalFrameDefault"),
    ]
    assert frame_that_matters(stack).symbol == "Cache.put"
    assert frame_that_matters(stack[:3]).symbol == "PyByteArray_Resize"
    extension = Frame(2, "_multiarray.cpython-312-x86_64-linux-gnu.so", "array_new")
    assert frame_that_matters([extension, *stack]) == extension


def test_javascript_matters_more_than_its_engine() -> None:
    stack = [
        Frame(1, "node", "node::NodeArrayBufferAllocator::Allocate(unsigned long)"),
        Frame(2, "[jit]", "Builtin:CallFunction"),
        Frame(3, "[js]", "alloc", file="node:buffer", line=380),
        Frame(3, "[js]", "tick", file="/srv/a.js", line=1),
        Frame(4, "node", "v8::Function::Call()"),
    ]
    assert frame_that_matters(stack).symbol == "tick"
    addon = Frame(0, "sharp.node", "resize(int)")
    assert frame_that_matters([addon, *stack]) == addon
    assert frame_that_matters([stack[4]]) == stack[4]
