"""How the screen reaches the terminal: Textual's driver, which need not be waited for."""

from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Does not wait for the thread that reads keys when the process is about to end.

    It is told to, but looks up every 0.1 s only, and once more then.
    """

    ending = False
    """Set before the application exits; while it is only suspended, the thread has to end."""

    def disable_input(self) -> None:
        """Give the terminal's input back."""
        if not self.ending:
            super().disable_input()
            return
        self._key_thread = None  # which Textual would wait for
        super().disable_input()
        self.exit_event.set()
