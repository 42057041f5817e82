"""The call tree against one that is built stack by stack, call by call."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from leaktop.calls import CUT, NO_STACK, Call, Kind, Node, Order, Row, Stack
from leaktop.calltree import Tree, TreeBuilder
from leaktop.model import Frame


def frames(*names: str, module: str = "app") -> tuple[Frame, ...]:
    """Return frames, innermost first, of which each has an address of its own."""
    return tuple(Frame(0x1000 * (i + 1), module, name) for i, name in enumerate(names))


def stack(stack_id: int, held: int, count: int, *names: str, **options: object) -> Stack:
    return Stack(stack_id, frames(*names), held, count, **options)  # type: ignore[arg-type]


def function(name: str) -> Call:
    return Call(Kind.FUNCTION, name, "app")


LEAK = stack(1, 600, 6, "malloc", "leak", "serve", "main", growth=60.0)
CACHE = stack(2, 300, 1, "put", "serve", "main")
OTHER = stack(3, 100, 2, "leak", "idle", "main", growth=-5.0)
STACKS = (LEAK, CACHE, OTHER)


def drawn(tree: Tree, rows: list[Row]) -> list[str]:
    return [
        f"{row.guides}{row.node.call.name} {row.node.bytes}/{row.node.own_bytes} {row.node.count}"
        for row in rows
    ]


def build(*stacks: Stack, bottom_up: bool = False, whole: bool = False) -> Tree:
    return TreeBuilder(bottom_up=bottom_up, whole=whole).build(stacks)


def test_top_down() -> None:
    tree = build(*STACKS)
    assert (tree.root.bytes, tree.root.count, tree.root.growth) == (1000, 9, 55.0)
    assert drawn(tree, tree.rows(tree.expand_all())) == [
        "main 1000/0 9",
        "├serve 900/0 7",
        "│├leak 600/600 6",
        "│└put 300/300 1",
        "└idle 100/0 2",
        " └leak 100/100 2",
    ]
    assert [row.is_open for row in tree.rows(tree.expand_all())] == [1, 1, 0, 0, 1, 0]


def test_bottom_up_merges_the_callers() -> None:
    tree = build(*STACKS, bottom_up=True)
    assert drawn(tree, tree.rows(tree.expand_all())) == [
        "leak 700/700 8",
        "├serve 600/0 6",
        "│└main 600/0 6",
        "└idle 100/0 2",
        " └main 100/0 2",
        "put 300/300 1",
        "└serve 300/0 1",
        " └main 300/0 1",
    ]


def test_only_what_is_unfolded_is_seen() -> None:
    tree = build(*STACKS)
    (main,) = tree.children(tree.root)
    assert drawn(tree, tree.rows(set())) == ["main 1000/0 9"]
    assert [row.node.call.name for row in tree.rows({main.id})] == ["main", "serve", "idle"]
    serve = tree.ordered(main)[0]
    assert len(tree.rows({serve.id})) == 1  # its caller is folded
    assert [node.call.name for node in tree.heaviest()] == ["main", "serve", "leak"]
    assert [node.call.name for node in tree.heaviest(serve)] == ["leak"]


def test_orders() -> None:
    tree = build(stack(1, 10, 5, "a", growth=1.0), stack(2, 30, 1, "b"), stack(3, 20, 3, "c"))

    def names(order: Order) -> str:
        return "".join(node.call.name for node in tree.ordered(tree.root, order))

    assert names(Order.TOTAL) == names(Order.OWN) == "bca"
    assert names(Order.COUNT) == "acb"
    assert names(Order.GROWTH) == "abc"


def test_a_function_may_allocate_itself_and_call_others_that_do() -> None:
    tree = build(stack(1, 10, 1, "f", "main"), stack(2, 5, 1, "g", "f", "main"))
    (main,) = tree.children(tree.root)
    (inner,) = tree.children(main)
    assert (inner.bytes, inner.own_bytes, inner.ends, inner.is_leaf) == (15, 10, 1, False)
    assert tree.chain(main) == [main, inner]
    assert tree.stack_ids(main) == [1, 2]


def test_recursion_counts_once() -> None:
    tree = build(stack(1, 10, 1, "f", "f", "f", "main"), stack(2, 5, 1, "f", "main"))
    assert drawn(tree, tree.rows(tree.expand_all())) == [
        "main 15/0 2",
        "└f 15/5 2",
        " └f 10/0 1",
        "  └f 10/10 1",
    ]
    tree = build(
        stack(1, 10, 1, "f", "f", "f", "main"), stack(2, 5, 1, "f", "main"), bottom_up=True
    )
    (inner,) = tree.children(tree.root)
    assert (inner.bytes, inner.own_bytes) == (15, 15)


def test_functions_are_merged_by_name_and_module_not_by_address() -> None:
    here = (Frame(0x10, "a", "f", 1), Frame(0x20, "a", "main", 2))
    there = (Frame(0x18, "a", "f", 9), Frame(0x28, "a", "main", 10))
    other = (Frame(0x90, "b", "f", 9), Frame(0x28, "a", "main", 10))
    tree = build(*(Stack(i, each, 10, 1) for i, each in enumerate((here, there, other))))
    (main,) = tree.children(tree.root)
    assert [(node.call.module, node.stacks) for node in tree.ordered(main)] == [("a", 2), ("b", 1)]


def test_addresses_merge_once_their_names_are_known() -> None:
    bare = [Stack(i, (Frame(0x10 + i, "a"), Frame(0x20, "a", "main")), 5, 1) for i in range(2)]
    builder = TreeBuilder()
    tree = builder.build(bare)
    (main,) = tree.children(tree.root)
    assert {node.call for node in tree.children(main)} == {
        Call(Kind.ADDRESS, "0x10", "a"),
        Call(Kind.ADDRESS, "0x11", "a"),
    }
    named = [
        replace(each, frames=(Frame(0x10, "a", "f"), Frame(0x20, "a", "main"))) for each in bare
    ]
    tree = builder.build(named)
    (again,) = tree.children(tree.root)
    assert again.id == main.id
    (inner,) = tree.children(again)
    assert (inner.call, inner.bytes) == (Call(Kind.FUNCTION, "f", "a"), 10)


def test_allocators_are_left_out_unless_asked_for() -> None:
    tree = build(LEAK, whole=True)
    assert [node.call.name for node in tree.heaviest()] == ["main", "serve", "leak", "malloc"]
    tree = build(LEAK, bottom_up=True, whole=True)
    assert [node.call.name for node in tree.heaviest()] == ["malloc", "leak", "serve", "main"]


def test_what_is_no_function_has_a_node_too() -> None:
    cut = stack(1, 10, 1, "f", "g", truncated=True)
    none = Stack(2, (), 7, 1, truncated=True)
    slab = stack(3, 5, 1, "alloc_inode", cache="inode_cache", process="sh 7")
    tree = build(cut, none, slab)
    roots = [CUT, NO_STACK, Call(Kind.PROCESS, "sh 7")]
    assert [node.call for node in tree.ordered(tree.root)] == roots
    assert tree.heaviest(tree.ordered(tree.root)[2])[-1].call == Call(Kind.CACHE, "inode_cache")
    tree = build(cut, none, slab, bottom_up=True)
    assert [node.call for node in tree.heaviest()] == [function("f"), function("g"), CUT]
    assert [node.call.kind for node in tree.ordered(tree.root)] == [
        Kind.FUNCTION,
        Kind.NO_STACK,
        Kind.CACHE,
    ]


def test_an_empty_tree() -> None:
    tree = build()
    assert (tree.root.bytes, tree.root.is_leaf) == (0, True)
    assert tree.rows({0}) == []
    assert tree.heaviest() == []
    assert tree.expand_all() == set()


def test_ids_stay_while_figures_and_stacks_change() -> None:
    builder = TreeBuilder()
    before = {row.node.id: row.node.call for row in _all_rows(builder.build(STACKS))}
    new = stack(9, 5000, 1, "new", "main")
    after = {row.node.id: row.node.call for row in _all_rows(builder.build((*STACKS[1:], new)))}
    for node_id in before.keys() & after.keys():
        assert before[node_id] == after[node_id]
    assert {call.name for call in before.values()} - {call.name for call in after.values()} == set()
    assert len(before) - 1 == len(before.keys() & after.keys())


def test_expand_all_is_bounded_and_begins_with_the_heaviest() -> None:
    stacks = [stack(i, 1000 - i, 1, f"leaf{i}", f"mid{i}", "main") for i in range(500)]
    tree = build(*stacks)
    rows = tree.rows(tree.expand_all(limit=600))
    assert len(rows) == 600
    assert all(row.is_open == (row.node.bytes > 901) for row in rows if row.node.depth == 2)


def _all_rows(tree: Tree) -> list[Row]:
    return tree.rows(tree.expand_all(limit=1 << 30))


_NAMES = st.sampled_from("abcd")
_STACKS = st.lists(
    st.tuples(
        st.lists(_NAMES, max_size=6),
        st.integers(-1000, 1000),
        st.integers(-9, 9),
        st.booleans(),
    ),
    max_size=12,
)
_Spec = list[tuple[list[str], int, int, bool]]


# By way from the root: bytes, blocks, and how many stacks end there.
def _naive(spec: _Spec, *, bottom_up: bool) -> dict[tuple[str, ...], list[int]]:
    sums: dict[tuple[str, ...], list[int]] = {}
    for names, held, count, cut in spec:
        way = [*names, "cut"] if cut and names else names or ["none"]
        way = way if bottom_up else way[::-1]
        for depth in range(1, len(way) + 1):
            node = sums.setdefault(tuple(way[:depth]), [0, 0, 0])
            node[0] += held
            node[1] += count
            node[2] += depth == len(way)
    return sums


def _label(call: Call) -> str:
    return {CUT: "cut", NO_STACK: "none"}.get(call, call.name)


def _ways(tree: Tree) -> dict[tuple[str, ...], Node]:
    found: dict[tuple[str, ...], Node] = {}
    way: list[str] = []
    for row in _all_rows(tree):
        way[row.node.depth - 1 :] = [_label(row.node.call)]
        found[tuple(way)] = row.node
    return found


@given(_STACKS, st.booleans(), st.data())
def test_the_tree_is_what_one_built_call_by_call_is(
    spec: _Spec, bottom_up: bool, data: st.DataObject
) -> None:
    builder = TreeBuilder(bottom_up=bottom_up)
    for shown in (spec, data.draw(st.permutations(spec))[: len(spec) // 2 + 1], spec):
        tree = builder.build(
            Stack(spec.index(each), frames(*each[0]), each[1], each[2], truncated=each[3])
            for each in {repr(each): each for each in shown}.values()
        )
        naive = _naive(list({repr(each): each for each in shown}.values()), bottom_up=bottom_up)
        ways = _ways(tree)
        assert {way: [n.bytes, n.count, n.ends] for way, n in ways.items()} == naive
        assert len({node.id for node in ways.values()}) == len(ways)
        assert sum(node.own_bytes for node in ways.values()) == tree.root.bytes
        assert sum(node.own_count for node in ways.values()) == tree.root.count
        assert sum(node.ends for node in ways.values()) == tree.root.stacks
        for node in [tree.root, *ways.values()]:
            below = tree.ordered(node)
            assert [n.bytes for n in below] == sorted((n.bytes for n in below), reverse=True)
            assert sum(n.stacks for n in below) == node.stacks - node.ends
