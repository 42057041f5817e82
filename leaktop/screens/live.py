"""What the screens that show live figures have in common."""

from collections.abc import Mapping

from textual.message import Message
from textual.screen import Screen

from leaktop.model import Frame, Site
from leaktop.widgets.status_bar import Status

Names = Mapping[int, tuple[Frame, ...]]
"""Frames with names, by stack id."""


class Wish(Message):
    """What a screen wishes of the session that it shows."""


class LiveScreen(Screen[None]):
    """A screen that is shown the state of things and repaints what changed."""

    class Resumed(Wish):
        """The screen is on top and wants to be shown the state of things."""

    class StackOpened(Wish):
        """One stack is to be looked at."""

        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site = site

    class IgnoreToggled(Wish):
        """A stack is not to be seen any more, or again where it is ignored."""

        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site = site

    class NamesWanted(Wish):
        """Other stacks are in sight."""

        def can_replace(self, message: Message) -> bool:
            """Let a later one replace one not handled yet."""
            return isinstance(message, LiveScreen.NamesWanted)

    def show(self, status: Status, names: Names) -> None:
        """Show the state of things."""
        raise NotImplementedError

    @property
    def stack(self) -> Site | None:
        """The stack that is selected, or looked at."""
        raise NotImplementedError

    def show_names(self, fresh: Names) -> None:
        """Show names that came since, also held by the ``names`` given to ``show``."""

    def resume_soon(self) -> None:
        """Ask for the state of things a little later, if that makes a difference here."""

    def on_screen_resume(self) -> None:
        """Ask for the state of things."""
        self.post_message(self.Resumed())
