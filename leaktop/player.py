"""The threads that feed the screen from a recording: as a collector's, but in the recording's time.

After a jump, rates, growth, trends and verdicts are as if all had been played up to there: they are
made anew from as many of the snapshots before as that takes, within bounds.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from textual.message import Message

from leaktop.collector import Collector
from leaktop.excerpt import Reader
from leaktop.feed import Feed
from leaktop.history import WINDOW_S, History
from leaktop.invoker import invoker
from leaktop.judge import Judge
from leaktop.messages import Played
from leaktop.source import SourceError
from leaktop.source.replay import ReplaySource
from leaktop.source.timeline import SPEEDS, Move, MoveKind, Playback, Tick
from leaktop.ticking import TickThread

_ROWS_AGAIN = 200_000  # stacks in all of the snapshots that are read again after a jump
_DELAY_S = 1.0  # its own times count, but a collector has one
_LONGEST_GAP_S = 3.0  # a recording stands still no longer than this


Play = Callable[[Callable[[Message], object], Sequence[Path]], "Player"]
"""Makes a player from where to post to, and files to write before the recording is closed."""


class Player(Collector):
    """A Collector over a recording. It begins to play at once."""

    def __init__(
        self,
        source: ReplaySource,
        post: Callable[[Message], object],
        exports: Sequence[Path] = (),
    ) -> None:
        self._replay = source
        super().__init__(source, post, _DELAY_S, exports)

    @property
    def begin(self) -> Playback:
        """Where it begins."""
        return Playback(self._replay.ticks, damage=self._replay.damage)

    def move(self, move: Move) -> None:
        """Go elsewhere, after all the moves asked for before."""
        self._ticks.ask(move)

    def make_ticks(self) -> TickThread:
        """Return the thread that plays."""
        return _PlayThread(self._feed, self._replay, self._exports, self.do_apart)

    def reader(self) -> Reader | None:
        """Return who called: what a recording names is read with nobody else's rights.

        None for root, whom anybody's recording could show anything.
        """
        caller = invoker()
        user = (os.geteuid(), os.getegid()) if caller is None else (caller.uid, caller.gid)
        return Reader(*user) if user[0] else None


class _PlayThread(TickThread):
    def __init__(
        self,
        feed: Feed,
        source: ReplaySource,
        exports: Sequence[Path],
        do_apart: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(feed, _DELAY_S, exports, do_apart)
        self._replay = source
        self._playback = Playback(source.ticks, 0, damage=source.damage)
        self._shown = False
        self._due = 0.0

    def loop(self, *, failed: bool = False) -> None:
        """Show the first snapshot, then play and do as asked until stopped."""
        if failed:
            super().loop(failed=True)
            return
        self._show(0)
        while not self._feed.stopping.is_set():
            wishes = self.take(self._due if self._playback.playing else None)
            if self._feed.stopping.is_set():
                return
            self.grant(wishes)
            self._go(wishes.moves)
            if wishes.tick or (self._playback.playing and time.monotonic() >= self._due):
                self._show(self._playback.number + 1)

    def _go(self, moves: Sequence[Move]) -> None:
        before = self._playback
        for move in moves:
            self._playback = _moved(self._playback, move)
        if self._playback.number != before.number:
            self._show(self._playback.number)
        elif self._playback != before:
            self._schedule()
            self._feed.post(Played(self._playback))

    def _show(self, wanted: int) -> None:
        ticks = self._replay.ticks
        number = max(0, min(wanted, len(ticks) - 1))
        try:
            if number != self._replay.number or not self._shown:
                if number != self._replay.number + 1 or not self._shown:
                    self._read_again(number)
                self._replay.seek(number)
                self.read()
                self._shown = True
        except SourceError:
            if not self._replay.ticks:
                raise
            # the recording ends before it, now
            self._shown = False
            self._playback = replace(
                self._playback,
                ticks=self._replay.ticks,
                damage=self._replay.damage,
                playing=False,
            )
            self._show(len(self._replay.ticks) - 1)
            return
        playing = self._playback.playing and number + 1 < len(ticks)
        self._playback = replace(self._playback, number=number, playing=playing)
        self._schedule()
        self._feed.post(Played(self._playback))
        self.look_closer()

    def _read_again(self, number: int) -> None:
        self._history, self._judge = History(), Judge()
        first = _first_needed(self._replay.ticks, number)
        self._replay.seek(first)
        for _ in range(first, number):
            self._judge.of(self._history.add(self._replay.snapshot()))
            if self._feed.stopping.is_set():
                return

    def _schedule(self) -> None:
        self._due = time.monotonic() + _gap_s(self._playback)


def _gap_s(playback: Playback) -> float:
    ticks, number = playback.ticks, playback.number
    if number + 1 >= len(ticks):
        return 0.0
    gap = ticks[number + 1].elapsed_s - ticks[number].elapsed_s
    return min(max(0.0, gap), _LONGEST_GAP_S) / playback.speed


def _moved(playback: Playback, move: Move) -> Playback:
    ticks, number = playback.ticks, playback.number
    last = len(ticks) - 1
    if move.kind is MoveKind.PLAY:
        # from the end on it begins again
        again = not playback.playing and number == last
        return replace(playback, playing=not playback.playing, number=0 if again else number)
    if move.kind is MoveKind.SPEED:
        speed = SPEEDS[(SPEEDS.index(playback.speed) + 1) % len(SPEEDS)]
        return replace(playback, speed=speed)
    if move.kind is MoveKind.STEP:
        wanted = max(0, min(number + move.amount, last))
        return replace(playback, number=wanted, playing=False)
    if move.kind is MoveKind.END:
        return replace(playback, number=last if move.amount > 0 else 0)
    return replace(playback, number=_jumped(ticks, number, move.amount))


# To the nearest snapshot that is at least so far away, or the last one there is on that side.
def _jumped(ticks: Sequence[Tick], number: int, seconds: int) -> int:
    wanted = ticks[number].elapsed_s + seconds
    step, end = (1, len(ticks) - 1) if seconds > 0 else (-1, 0)
    while number != end:
        number += step
        if (ticks[number].elapsed_s - wanted) * step >= 0:
            break
    return number


# What is before a snapshot, back to where reading it all would take too long.
def _first_needed(ticks: Sequence[Tick], number: int) -> int:
    rows, first = 0, number
    while first > 0:
        rows += ticks[first - 1].sites + 1
        within_window = ticks[number].elapsed_s - ticks[first - 1].elapsed_s <= 2 * WINDOW_S
        if rows > _ROWS_AGAIN and not within_window:
            break
        first -= 1
    return first
