"""Function names of C++, Rust and Go cut to what tells them apart. Pure, standard library only.

Names come from the target: whatever is not understood stays as it is, and nothing takes longer
than the name is long.
"""

import re
from functools import lru_cache

LIMIT = 4096
"""Characters of a name that are looked at."""

_ELLIPSIS = "…"
_CLOSING = {"(": ")", "<": ">", "[": "]", "{": "}"}
_OPENING = {closing: opening for opening, closing in _CLOSING.items()}

# What compilers add to a name for a part or a copy of a function, mangled or not.
_CLONES = re.compile(
    r"(?: ?\[clone [^\]]*\]| \(\.[\w.]+\)|\.(?:cold|part|isra|constprop|lto_priv|llvm|localalias)"
    r"(?:\.\d+)*)+$"
)
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_CRATE_HASH = re.compile(r"\[[0-9a-f]{10,16}\]")  # of v0 names, on each crate
_ABI_TAG = re.compile(r"\[abi:\w+\]")
# libstdc++, libc++ and Abseil put all they have in an inline name space for their version.
_INLINE = re.compile(r"\b(std|__gnu_cxx|absl|std::filesystem)::(?:__(?:cxx11|ndk\d|\d)|lts_\d+)::")
# What template arguments end with unless somebody asked for something else.
_DEFAULT = re.compile(
    r", ?std::(?:allocator|char_traits|default_delete|equal_to|hash|less|regex_traits)<"
)
_OF_CHAR = re.compile(r"\bstd::basic_(\w+)<char>")
_REQUIRES = re.compile(r"(?<=[)\w]) requires .*", re.DOTALL)
_KEPT = ("impl ", "dyn ")  # Rust: <impl Trait for T>::f and <dyn Trait>::f are not T's own
_STRINGS = re.compile(
    r"\bstd::basic_(string(?:_view)?)<(char|wchar_t)(?:, std::char_traits<\2> ?)?"
    r"(?:, std::allocator<\2> ?)?>"
)
_TRAILING = re.compile(r"(?:\s*(?:const|volatile|&&?|noexcept|\[[^\]]*\]))+$")
_INNER_END = re.compile(r"(?: (?:const|volatile|&&?))*(?=::)")
_OPERATOR = re.compile(r"\boperator[^(){}]*$")
_NO_BRACKETS = re.compile(
    r"\boperator(?:\(\)|\[\]|\s*(?:<=>|->\*?|<<=?|>>=?|<=|>=|<|>))"
    r"|<(?:module|lambda|locals|listcomp|setcomp|dictcomp|genexpr)>"  # Python
    r"|(?<=\.)<(?:cl)?init>"  # Java
)
_MAX_NESTED = 8
_GO_PATH = re.compile(r"^(?:[\w-]+\.)+[a-z]{2,}/(?:[^/\s(\[]+/)*(?=[^/\s(\[]+\.)")
_SIGN_OF = str.maketrans("<>()[]", "\ue000\ue001\ue002\ue003\ue004\ue005")
_SIGN_BACK = str.maketrans("\ue000\ue001\ue002\ue003\ue004\ue005", "<>()[]")


@lru_cache(maxsize=16384)
def short_name(symbol: str, width: int = 0) -> str:
    """Return a function's name for a table: without parameters, result and noise.

    Dropped are ABI tags, inline name spaces such as ``std::__cxx11``, hashes and crate hashes of
    Rust, marks of compiler clones, the path of a Go package, and template arguments that are the
    usual ones: allocators, hashes; ``std::basic_string<char, …>`` is ``std::string``. Template
    arguments become ``<…>`` where the name does not fit into ``width`` characters with them.
    """
    if len(symbol) > LIMIT:
        return symbol
    name = without_parameters(symbol)
    return name if len(name) <= width else _fold(name, f"<{_ELLIPSIS}>")


@lru_cache(maxsize=16384)
def qualified_name(symbol: str) -> str:
    """Return the name alone: ``short_name`` without template arguments altogether.

    ``void std::vector<int>::push<long>(long) const`` is ``std::vector::push``. The ``<T as
    Trait>`` that Rust names begin with stays.
    """
    return _fold(without_parameters(symbol[:LIMIT]), "").replace("::::", "::").rstrip(": ")


def without_parameters(symbol: str) -> str:
    """Return a name without parameters, result and noise, but with its template arguments."""
    name = _CLONES.sub("", symbol)
    name = _RUST_HASH.sub("", _RUST_CRATE_HASH.sub("", _ABI_TAG.sub("", name)))
    name = _GO_PATH.sub("", _INLINE.sub(r"\1::", name))
    name = _STRINGS.sub(lambda found: f"std::{'w' * (found[2] != 'char')}{found[1]}", name)
    if name.startswith("operator "):  # new, delete and conversions
        return name.partition("(")[0]
    # signs that are no brackets are out of the way under other characters
    name = _without_defaults(_NO_BRACKETS.sub(_masked, name).replace(" >", ">"))
    name = _REQUIRES.sub("", _OF_CHAR.sub(r"std::\1", name))
    name = _without_result(_without_inner_lists(_without_list(name)))
    return name.translate(_SIGN_BACK) or symbol


def _without_list(name: str, nested: int = 0) -> str:
    # cuts the parameters off the end, and what qualifies the function behind them
    bare = _TRAILING.sub("", name)
    if not bare.endswith(")"):
        return name
    at = _opening(bare, len(bare) - 1)
    if at <= 0 or bare[at:].startswith("(anonymous") or bare[at - 1] in ":.":
        return name
    rest = bare[:at].rstrip()
    if not rest.endswith(")") or nested >= _MAX_NESTED:
        return rest
    # what returns a pointer to a function: int (*f(int))(char)
    inner = rest[_opening(rest, len(rest) - 1) + 1 : -1].lstrip("*& ")
    return _without_list(inner, nested + 1) if inner and rest.endswith(f"*{inner})") else rest


def _without_defaults(name: str) -> str:
    parts, begin, seen = [], 0, 0
    for found in _DEFAULT.finditer(name):
        if found.start() < seen:
            continue
        seen = _closing(name, found.end() - 1) + 1
        if name[seen : seen + 1] in {",", ">"}:
            parts.append(name[begin : found.start()])
            begin = seen
    return "".join([*parts, name[begin:]])


def _without_inner_lists(name: str) -> str:
    # f(int) const::{lambda()#1}::operator() is f::{lambda()#1}::operator()
    if ")" not in name:
        return name
    parts, begin, depth = [], 0, 0
    for at, sign in enumerate(name):
        if sign in _CLOSING:
            depth += 1
            if depth == 1:
                opened = at
        elif sign in _OPENING and not (sign == ">" and at and name[at - 1] == "-"):
            depth -= 1
            if depth < 0:
                return name
            behind = _INNER_END.match(name, at + 1)
            if not depth and behind and sign == ")" and not name.startswith("(anon", opened):
                parts.append(name[begin:opened])
                begin = behind.end()
    return "".join([*parts, name[begin:]])


def _opening(text: str, end: int) -> int:
    # where the bracket opens that closes at `end`; -1 where they do not match
    wanted: list[str] = []
    for at in range(end, -1, -1):
        sign = text[at]
        if sign in _OPENING and not (sign == ">" and at and text[at - 1] == "-"):
            wanted.append(_OPENING[sign])
        elif sign in _CLOSING and wanted and wanted.pop() != sign:
            return -1
        if not wanted:
            return at
    return -1


def _without_result(name: str) -> str:
    # the name begins behind the last blank outside brackets, but for `operator unsigned int`
    depth = 0
    for at in range(len(name) - 1, -1, -1):
        sign = name[at]
        if sign in _OPENING and not (sign == ">" and at and name[at - 1] == "-"):
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif sign == " " and not depth and not _OPERATOR.search(name, 0, at):
            return name[at + 1 :].lstrip("*&") if _is_result(name[:at]) else name
        if depth < 0:
            return name
    return name


def _is_result(text: str) -> bool:
    # not so in names as runtimes give them: `get size`, `LazyCompile:~f /a.js`, `vtable for X`
    return text not in {"get", "set"} and re.search(r"\bfor$|[/~*]\w|[^:]:[^:]", text) is None


def _fold(name: str, folded: str, nested: int = 0) -> str:
    # puts `folded` for each outermost <...>, but a Rust name may begin with <T as Trait> or <T>
    masked = _NO_BRACKETS.sub(_masked, name)
    if masked.startswith("<") and nested < _MAX_NESTED:
        end = _closing(masked)
        inner = _fold(masked[1:end], folded, nested + 1)
        rest = _fold(masked[end + 1 :], folded, nested + 1)
        if " as " in inner or inner.startswith(_KEPT):
            return f"<{inner}>{rest}".translate(_SIGN_BACK)
        if rest.startswith("::"):
            return f"{inner}{rest}".translate(_SIGN_BACK)
    head, found, rest = masked.partition("::<impl ")
    if folded and found and nested < _MAX_NESTED and head.count("<") == head.count(">"):
        parts = [_fold(each, folded, nested + 1) for each in (head, f"<impl {rest}")]
        return "::".join(parts).translate(_SIGN_BACK)
    parts, depth, round_depth = [], 0, 0
    for at, sign in enumerate(masked):
        if not depth and sign != "<":
            parts.append(sign)
            continue
        round_depth += (sign == "(") - (sign == ")")
        if round_depth <= 0 and sign == "<":
            depth += 1
            if depth == 1:
                parts.append(folded)
        elif round_depth <= 0 and sign == ">" and masked[at - 1] != "-":
            depth -= 1
            round_depth = 0
    return name if depth else "".join(parts).translate(_SIGN_BACK)


def _masked(found: re.Match[str]) -> str:
    return found[0].translate(_SIGN_OF)


def _closing(text: str, begin: int = 0) -> int:
    # where the bracket closes that opens at `begin`
    depth = 0
    for at in range(begin, len(text)):
        depth += (text[at] == "<") - (text[at] == ">" and text[at - 1] != "-")
        if not depth:
            return at
    return len(text)
