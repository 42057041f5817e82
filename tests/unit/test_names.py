"""Names for narrow screens, and the table of plumbing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaktop.names import qualified_name, short_name
from leaktop.plumbing import is_plumbing

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
        ("auto main::'lambda'(int)::operator()(int) const", "main::'lambda'(int)::operator()"),
        ("std::unique_ptr<Foo> make_foo(int (*)(char))", "make_foo"),
        ("A<(1>2)>::f()", "A<…>::f"),
        ("foo(int) [clone .cold]", "foo"),
        ("foo(int) (.cold.1)", "foo"),
        ("foo.isra.0.cold", "foo"),
        ("alloc::vec::Vec<T,A>::push::h0123456789abcdef", "alloc::vec::Vec<…>::push"),
        ("foo::main::{{closure}}::h0123456789abcdef", "foo::main::{{closure}}"),
        ("foo[1a2b3c4d5e6f7081]::bar::{closure#0}", "foo::bar::{closure#0}"),
        ("<foo::Bar<i32> as foo::Make<u8>>::go::<u8>", "<foo::Bar<…> as foo::Make<…>>::go::<…>"),
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
""".split("\n")[1:-1]

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
folly::Future<int>::then
JS:~malloc /a.js:1:1
""".split("\n")[1:-1]


@pytest.mark.parametrize("symbol", PLUMBING)
def test_plumbing(symbol: str) -> None:
    assert is_plumbing(symbol)


@pytest.mark.parametrize("symbol", MEANT)
def test_what_a_reader_looks_for(symbol: str) -> None:
    assert not is_plumbing(symbol)
