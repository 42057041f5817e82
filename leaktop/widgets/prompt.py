"""A line of text to be typed."""

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input


class Prompt(Input):
    """One line of text that takes all its keys by itself."""

    BINDINGS = [Binding("escape", "leave", show=False)]  # noqa: RUF012

    class Left(Message):
        """Esc was pressed."""

    # Textual runs a binding when its key has bubbled up to the app; by then the letters typed after
    # it have been put in, since those need not bubble. So all keys are taken here, in order.
    async def _on_key(self, event: events.Key) -> None:
        bound = None if event.is_printable else self.screen.active_bindings.get(event.key)
        if bound is None or bound.node is not self:
            return
        if await self.app.run_action(bound.binding.action, self):
            event.stop()
            event.prevent_default()

    def action_leave(self) -> None:
        """Say that it is to be left."""
        self.post_message(self.Left())
