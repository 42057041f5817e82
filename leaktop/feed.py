"""What the threads over one source share: the source, how they tell the screen, when they end."""

import contextlib
import threading
from collections.abc import Callable

from textual.message import Message

from leaktop.messages import Closed, Said
from leaktop.source import Source


class Feed:
    """The way from one source to the screen, on behalf of one collector."""

    def __init__(
        self, source: Source, post: Callable[[Message], object], collector: object
    ) -> None:
        self.source = source
        self.stopping = threading.Event()
        self._post = post
        self._collector = collector

    def post(self, message: Said) -> None:
        """Post to the screen, unless it is done with this source."""
        if not self.stopping.is_set():
            self._say(message)

    def post_closed(self) -> None:
        """Post that the source is closed; who left it may wait for that."""
        with contextlib.suppress(RuntimeError):  # the screen's loop has ended
            self._say(Closed())

    def _say(self, message: Said) -> None:
        message.collector = self._collector
        self._post(message)
