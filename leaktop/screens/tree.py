"""The call tree: who calls what allocates, or who allocates and from where."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from leaktop import format as fmt
from leaktop.calls import Node, Order, Row
from leaktop.model import Site
from leaktop.screens.live import LiveScreen, Names, Wish
from leaktop.tree_thread import BuiltTree, TreeWish, Unfold
from leaktop.widgets.call_tree import CallTreeView, TreeRows
from leaktop.widgets.key_hints import KeyHints
from leaktop.widgets.rows import RowsView
from leaktop.widgets.status_bar import FilterLine, Status, StatusBar

_HINTS = (
    ("Esc", "table"),
    ("Enter ← →", "fold and unfold"),
    ("r", "reverse"),
    ("E C", "unfold, fold all"),
    ("s", "sort"),
    ("f", "allocators"),
    ("m d", "mark, what grew"),
    ("Space", "pause"),
    ("?", "help"),
    ("q", "quit"),
)
_SHORT_HINTS = (
    ("Esc", "table"),
    ("←→", "fold"),
    ("r", "reverse"),
    ("E C", "all"),
    ("s", "sort"),
    ("p", "pause"),
    ("?", "help"),
    ("q", "quit"),
    ("f", "frame"),
)
_NAMES_S = 0.25  # how often names alone have the tree built again
_COMM = 16


@dataclass
class TreeState:
    """How the tree is looked at; outlives its screen."""

    bottom_up: bool = False
    whole: bool = False
    order: Order = Order.TOTAL
    unfolded: dict[bool, Set[int]] = field(
        default_factory=lambda: {False: frozenset(), True: frozenset()}
    )
    """Ids of nodes, from the top down and from the bottom up."""
    untouched: set[bool] = field(default_factory=lambda: {False, True})
    """The ways in which the heaviest way is unfolded, as long as nobody chose otherwise."""


class TreeScreen(LiveScreen):
    """All stacks that the table shows, merged."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,t,backspace", "leave", show=False),
        Binding("r", "turn", show=False),
        Binding("f", "whole", show=False),
        Binding("s,greater_than_sign", "sort(1)", show=False),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("right,l", "unfold", show=False),
        Binding("left,h", "fold", show=False),
        Binding("E,asterisk", "unfold_all", show=False),
        Binding("C", "fold_all", show=False),
    ]

    class Wanted(Wish):
        """A tree is to be built."""

        def __init__(self, wish: TreeWish) -> None:
            super().__init__()
            self.wish = wish

    def __init__(
        self,
        state: TreeState,
        shown: Callable[[Status, Names], Sequence[Site]],
        pattern: str,
        left: Callable[[], None],
    ) -> None:
        """``shown`` returns the stacks that pass the table's filters, ``pattern`` among them.

        ``left`` is called when the screen is gone, however it goes.
        """
        super().__init__()
        self._state = state
        self._sites_of = shown
        self._left = left
        self._pattern = pattern
        self._status: Status | None = None
        self._names: Names = {}
        self._wished: TreeWish | None = None
        self._built: BuiltTree | None = None
        self._names_pending = False
        self._unfolding = False
        self._bar = StatusBar()
        self._line = FilterLine()
        self.calls = CallTreeView()

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield self._bar
        yield self._line
        yield self.calls
        arrows = str.maketrans("←→", "hl") if self.calls.ascii_only else {}
        hints, short = (
            tuple((key.translate(arrows), word) for key, word in each)
            for each in (_HINTS, _SHORT_HINTS)
        )
        yield KeyHints(hints, short)

    def on_mount(self) -> None:
        """Let the keys move through the tree."""
        self.calls.focus()

    def on_unmount(self) -> None:
        """Want no more trees."""
        self._left()

    def show(self, status: Status, names: Names) -> None:
        """Show the state of things; the tree follows."""
        self._status, self._names = replace(status, pattern=self._pattern), names
        self._bar.show(self._status)
        self._line.show(self._status)
        self._want()
        self.post_message(self.NamesWanted())

    def show_names(self, fresh: Names) -> None:
        """Have the tree built again with names that came since; they come in many small lots."""
        if not self._names_pending:
            self._names_pending = True
            self.set_timer(_NAMES_S, self._renamed)

    def _renamed(self) -> None:
        self._names_pending = False
        self._want()

    def _want(self) -> None:
        status, state = self._status, self._state
        if status is None or (reading := status.reading) is None:
            self._show_rows()
            return
        processes = {
            each.target.pid: f"{fmt.clean(each.target.comm, _COMM)} {each.target.pid}"
            for each in reading.snapshot.processes
        }
        way = state.bottom_up
        unfold = Unfold.HEAVIEST if way in state.untouched else Unfold.THESE
        self._wished = TreeWish(
            sites=self._sites_of(status, self._names),
            names=self._names,
            growth=reading.growth,
            mark=status.mark,
            processes=processes,
            bottom_up=way,
            whole=state.whole,
            unfolded=state.unfolded[way],
            unfold=Unfold.ALL if self._unfolding else unfold,
            order=state.order,
        )
        self.post_message(self.Wanted(self._wished))

    def show_tree(self, built: BuiltTree) -> None:
        """Show a tree that was built."""
        self._built = built
        way, state = built.wish.bottom_up, self._state
        if built.wish.unfold is Unfold.ALL and self._unfolding:
            self._unfolding = False
            state.unfolded[way] = built.unfolded
            state.untouched.discard(way)
        elif built.wish.unfold is Unfold.HEAVIEST and way in state.untouched:
            state.unfolded[way] = built.unfolded
            if built.named and built.rows:  # from now on nothing moves of itself
                state.untouched.discard(way)
        self._show_rows()

    @property
    def settled(self) -> bool:
        """Whether the tree that is shown is the last one wished for."""
        return self._built is not None and self._built.wish is self._wished

    @property
    def _unfolded(self) -> Set[int]:
        way = self._built.wish.bottom_up if self._built else False
        return self._state.unfolded[way]

    def _rows(self, built: BuiltTree) -> Sequence[Row]:
        unfolded, order = self._unfolded, self._state.order
        if unfolded is built.unfolded and order is built.wish.order:
            return built.rows
        return built.tree.rows(unfolded, order)

    def _show_rows(self) -> None:
        status, built = self._status, self._built
        if built is None or status is None or status.reading is None:
            self.calls.show(TreeRows(empty="merging the stacks ..."))
            return
        self.calls.show(
            TreeRows(
                rows=self._rows(built),
                total=built.tree.root.bytes,
                order=self._state.order,
                bottom_up=built.wish.bottom_up,
                estimated=status.reading.snapshot.estimated,
                pages=status.reading.snapshot.growth is not None,
                changes=built.wish.mark is not None,
                empty="no stack passes the filters of the table",
            )
        )

    def _change(self, unfolded: Set[int]) -> None:
        if self._built is not None:
            way = self._built.wish.bottom_up
            self._state.unfolded[way] = unfolded
            self._state.untouched.discard(way)
            self._show_rows()

    @on(RowsView.Opened)
    def _opened(self) -> None:
        if (row := self.calls.selected) is None:
            return
        if row.node.is_leaf:
            self._open_stack(row.node)
        elif row.is_open:
            self._change(self._unfolded - {row.node.id})
        else:
            self.action_unfold()

    # Of several that end in one call, the one that holds most.
    def _open_stack(self, node: Node) -> None:
        built = self._built
        if built is None:
            return
        stack_id = built.tree.stack_ids(node)[0]
        for site in built.wish.sites:
            if site.stack_id == stack_id:
                self.post_message(self.StackOpened(site))
                return

    def action_unfold(self) -> None:
        """Unfold the selected call and what it leads to without a choice; or go down."""
        if self._built is None or (row := self.calls.selected) is None or row.node.is_leaf:
            return
        if row.is_open:
            self.calls.action_move(1)
            return
        chain = {node.id for node in self._built.tree.chain(row.node)}
        self._change(self._unfolded | chain)

    def action_fold(self) -> None:
        """Fold the selected call, or go to the one above."""
        if (row := self.calls.selected) is None:
            return
        if row.is_open:
            self._change(self._unfolded - {row.node.id})
        elif row.node.depth > 1:
            self.calls.select(self.calls.above(row.node.depth - 1))

    def action_unfold_all(self) -> None:
        """Unfold all there is, or as much as can be looked at."""
        self._unfolding = True
        self._want()

    def action_fold_all(self) -> None:
        """Fold all."""
        if self.calls.selected is not None:
            self.calls.select(self.calls.above(1))
            self._change(set())

    def action_turn(self) -> None:
        """Look at the tree from the other end."""
        self._state.bottom_up = not self._state.bottom_up
        self._want()

    def action_whole(self) -> None:
        """Show the allocators' own functions too, or no longer."""
        self._state.whole = not self._state.whole
        self._want()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        orders = list(Order)
        self._sort(orders[(orders.index(self._state.order) + step) % len(orders)])

    @on(CallTreeView.SortClicked)
    def _sort_clicked(self, event: CallTreeView.SortClicked) -> None:
        self._sort(event.order)

    def _sort(self, order: Order) -> None:
        self._state.order = order
        self._show_rows()

    def action_leave(self) -> None:
        """Go back to the table."""
        self.dismiss()
