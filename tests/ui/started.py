"""A command for the screen to show."""

import os
import signal
import subprocess

from leaktop.command import Command, Output, open_terminal
from leaktop.widgets.output_pane import OutputPane
from tests.ui.driving import Driver


class Started:
    """A real process, with output that the test writes in its place."""

    def __init__(self, name: str = "leaky\x1b[2J") -> None:
        ours, self.theirs = open_terminal(80, 24)
        process = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"],
            stdout=subprocess.PIPE)  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.stdout.close()
        self.command = Command(process, name, Output(ours))

    def write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self.theirs, data) :]

    def end(self) -> None:
        self.command.send(signal.SIGKILL)
        os.close(self.theirs)

    async def written(self, driver: Driver, lines: int) -> None:
        output = self.command.output
        assert output is not None
        await driver.until(lambda: output.total >= lines)
        pane(driver).catch_up()
        await driver.pilot.pause()


def pane(driver: Driver) -> OutputPane:
    return driver.main.query_one(OutputPane)
