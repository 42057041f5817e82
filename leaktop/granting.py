"""What a session is asked for by its screens and by keys, and how it is granted."""

from collections.abc import Callable, Mapping
from functools import singledispatchmethod

from textual.app import App

from leaktop.ignoring import Ignoring, notice_of
from leaktop.screens.detail import DetailScreen
from leaktop.screens.live import LiveScreen, Wish
from leaktop.screens.main import MainScreen
from leaktop.screens.tree import TreeScreen
from leaktop.session import Session
from leaktop.sessions import Sessions

_NOTICE_S = 10.0  # how long a notice is shown

ON_KEYS: Mapping[str, Callable[[Session], None]] = {
    "pause": Session.pause,
    "mark": Session.set_mark,
    "clear_mark": Session.clear_mark,
    "grown": Session.toggle_grown,
    "show_ignored": Session.toggle_ignored,
    "record": Session.toggle_recording,
}
"""What a key may ask of the session, whichever screen is on top."""


class Granting:
    """Grants the wishes of screens: by their session, and where it takes another screen."""

    def __init__(self, app: App[int], sessions: Sessions, ignoring: Ignoring) -> None:
        self._app = app
        self._sessions = sessions
        self._ignoring = ignoring

    @singledispatchmethod
    def grant(self, wish: Wish, session: Session) -> None:
        """Do what a screen of ``session`` wishes for."""
        raise NotImplementedError(type(wish).__qualname__)

    @grant.register
    def _(self, _: LiveScreen.Resumed, session: Session) -> None:
        session.update()

    @grant.register
    def _(self, _: LiveScreen.NamesWanted, session: Session) -> None:
        session.want_names()

    @grant.register
    def _(self, wish: LiveScreen.StackOpened, session: Session) -> None:
        self._app.push_screen(session.open(wish.site), lambda _: session.stack_left())

    @grant.register
    def _(self, wish: LiveScreen.IgnoreToggled, session: Session) -> None:
        stack_id = wish.site.stack_id
        matched = session.status.ignored.entries.get(stack_id)
        frames = session.names.get(stack_id)
        if frames is not None:
            frames = frames or wish.site.frames
        toggled = self._ignoring.toggle(frames or (), matched)
        session.ignore(self._ignoring.list)
        self.tell(session, notice_of(toggled, session.status.ignored))

    @grant.register
    def _(self, wish: MainScreen.FiltersEdited, session: Session) -> None:
        session.apply(wish.filters)

    @grant.register
    def _(self, _: MainScreen.TreeOpened, session: Session) -> None:
        if isinstance(top := self._sessions.top, MainScreen):
            self._app.push_screen(session.open_tree(top))

    @grant.register
    def _(self, wish: TreeScreen.Wanted, session: Session) -> None:
        session.want_tree(wish.wish)

    @grant.register
    def _(self, wish: DetailScreen.BlocksWanted, session: Session) -> None:
        session.collector.list_blocks(wish.wanted)

    @grant.register
    def _(self, wish: DetailScreen.ContentWanted, session: Session) -> None:
        session.collector.read_block(wish.block)

    @grant.register
    def _(self, wish: DetailScreen.LogWanted, session: Session) -> None:
        session.collector.log(wish.stack_id)

    def tell(self, session: Session, notice: str) -> None:
        """Show a notice for a while."""
        session.tell(notice)
        self._app.set_timer(_NOTICE_S, lambda: session.forget(notice))
