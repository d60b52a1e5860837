"""qmail-send's loop: waits for reports, for the trigger of todo/, and for the time.

Signals only set flags.
"""

import os
import select
import signal
import time
from collections.abc import Iterator

from pyqmail.send import bounce, clean, controls, ending, inventory
from pyqmail.send.cleaner import Cleaned, Cleaner, CleanerDied
from pyqmail.send.delivery import RETRY_TROUBLE, Channel, Events
from pyqmail.send.intake import Intake
from pyqmail.send.log import Log
from pyqmail.send.routing import Routing
from pyqmail.send.schedule import CHANNELS, LOCAL, Due
from pyqmail.send.spawner import Spawner, SpawnerDied
from ucspi import control

CLEANUP_INTERVAL = 76_431  # seconds between looks for abandoned files
CLEANUP_STEP = 200  # files looked at before deliveries have their turn again
FOREVER = 86_400  # seconds; the longest sleep


class QmailSend:
    """The queue manager's state. The current directory is the queue."""

    def __init__(
        self,
        settings: controls.Controls,
        routing: Routing,
        spawners: list[Spawner],
        cleaner: Cleaner,
        log: Log,
        env: dict[str, str],
    ) -> None:
        """Begin with nothing known of the queue.

        Raises:
            SpawnerDied: a spawner does not say its limit.
        """
        self._settings = settings
        self._cleaner = cleaner
        self._log = log
        self._env = env
        events = Events(self._finished, self._failed, self._log_status)
        self._channels = [
            Channel(
                *(index, spawner, min(settings.concurrency[index], spawner.limit())),
                *(settings.lifetime, log, events),
            )
            for index, spawner in zip(CHANNELS, spawners, strict=True)
        ]
        self._over = Due()  # messages without recipients left
        self._unknown = Due()  # messages of which the system did not tell
        self._intake = Intake(routing, self._channels, cleaner, log, self._finished)
        self._cleanup_at = 0
        self._cleanup: Iterator[int | None] | None = None
        self._deliveries = 0
        self._now = 0
        self._exit = self._retry_all = self._reread = False
        self._woken = -1

    # What channels tell.

    def _finished(self, number: int) -> None:
        self._over.add(self._now, number)

    def _failed(self, number: int, recipient: bytes, report: bytes) -> None:
        known_as = self._intake.routing.without_prepend(recipient)
        ending.remember_failure(number, bounce.paragraph(known_as, report), self._log)

    def _take_number(self) -> int:
        self._deliveries += 1
        return self._deliveries

    def _log_status(self) -> None:
        local, remote = ((len(channel.running), channel.limit) for channel in self._channels)
        self._log.line(
            f"status: local {local[0]}/{local[1]} remote {remote[0]}/{remote[1]}",
            " exitasap" if self._exit else "",
        )

    # Signals.

    def catch_signals(self) -> None:
        """Let TERM end the program, ALRM make everything due, HUP read controls again."""
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: self._on("_exit"))
        signal.signal(signal.SIGALRM, lambda number, frame: self._on("_retry_all"))
        signal.signal(signal.SIGHUP, lambda number, frame: self._on("_reread"))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on(self, flag: str) -> None:
        setattr(self, flag, True)

    # The loop.

    def load(self) -> None:
        """Find out what is in the queue.

        Raises:
            OSError: a directory cannot be read.
        """
        self._now = int(time.time())
        self._add(inventory.take(self._log))
        self._log_status()

    def _add(self, found: inventory.Inventory) -> None:
        for channel in self._channels:
            channel.due.extend(found.channels[channel.index])
        self._over.extend([(self._now, number) for number in found.over])
        self._unknown.extend([(self._now + RETRY_TROUBLE, n) for n in found.unknown])

    def run(self) -> None:
        """Deliver mail until told to exit, or until a companion dies."""
        self._log.keeps = True
        while not (self._exit and self._may_exit()):
            self._now = int(time.time())
            self._wait(self._timeout())
            self._now = int(time.time())
            if self._retry_all:
                self._retry_all = False
                for channel in self._channels:
                    channel.due.all_due(self._now)
                self._intake.all_due()
            if self._reread:
                self._reread = False
                self._reread_controls()
            if self._exit:
                self._wind_up()
            else:
                self._work()
        for channel in self._channels:
            channel.remember_due_times()
        self._log.line("status: exiting")

    def _may_exit(self) -> bool:
        if self._cleaner.alive and self._cleaner.busy:
            return False
        return not any(c.running for c in self._channels if c.spawner.alive)

    def _timeout(self) -> int:
        """Return seconds until there is work."""
        if self._exit:
            return FOREVER
        if self._cleanup is not None and not self._cleaner.busy:
            return 0
        times: list[int | None] = [channel.wakeup() for channel in self._channels]
        times += [self._over.first(), self._unknown.first(), self._intake.wakeup(self._now)]
        if not self._cleaner.busy:  # else its answer wakes us
            times.append(self._cleanup_at)
        times.append(self._now + FOREVER)
        return max(0, min(when for when in times if when is not None) - self._now)

    def _wait(self, timeout: int) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        todo = self._intake.todo
        if todo.trigger >= 0 and todo.look_at > self._now and not self._exit:
            poll.register(todo.trigger, select.POLLIN)  # else it has been pulled already
        for channel in self._channels:
            if channel.spawner.alive:
                poll.register(channel.spawner.read_fd, select.POLLIN)
                if channel.spawner.blocked:
                    poll.register(channel.spawner.write_fd, select.POLLOUT)
        if self._cleaner.alive:
            poll.register(self._cleaner.read_fd, select.POLLIN)
            if self._cleaner.blocked:
                poll.register(self._cleaner.write_fd, select.POLLOUT)
        self._log.flush()
        ready = {descriptor for descriptor, _ in poll.poll(timeout * 1000)}
        if self._woken in ready:
            os.read(self._woken, 4096)
        if todo.trigger in ready:
            todo.pulled()
        for channel in self._channels:
            try:
                if channel.spawner.write_fd in ready:
                    channel.spawner.flush()
                if channel.spawner.read_fd in ready:
                    for report in channel.spawner.receive():
                        channel.report(report)
            except SpawnerDied:
                self._lost_spawner(channel)
        try:
            if self._cleaner.write_fd in ready:
                self._cleaner.flush()
            if self._cleaner.read_fd in ready:
                for cleaned in self._cleaner.receive():
                    self._cleaned(cleaned)
        except CleanerDied:
            self._lost_cleaner()

    def _lost_cleaner(self) -> None:
        self._cleaner.alive = False
        self._exit = True
        self._log.line("alert: oh no! lost qmail-clean connection! dying...")

    def _lost_spawner(self, channel: Channel) -> None:
        channel.spawner.alive = False
        self._exit = True
        self._log.line("alert: oh no! lost spawn connection! dying...")

    def _work(self) -> None:
        try:
            self._intake.proceed(self._now)
            for channel in self._channels:
                try:
                    channel.start(self._now, self._take_number)
                except SpawnerDied:
                    self._lost_spawner(channel)
            self._start_direct()
            self._end_messages()
            self._look_again()
            self._clean_up()
        except CleanerDied:
            self._lost_cleaner()

    def _wind_up(self) -> None:
        """While deliveries under way are waited for: let none of them be forgotten."""
        try:
            if self._cleaner.alive:
                self._intake.end_directs(self._now)
        except CleanerDied:
            self._lost_cleaner()

    def _start_direct(self) -> None:
        channel = self._channels[LOCAL]
        try:
            if channel.spawner.alive:
                self._intake.start(self._take_number)
        except SpawnerDied:
            self._lost_spawner(channel)

    def _cleaned(self, one: Cleaned) -> None:
        if not one.done:
            name = clean.encode(one.action, one.number)[:-1]
            self._log.line("warning: qmail-clean unable to clean up ", name)
        if one.action is clean.Action.TODO:
            self._intake.cleaned(one, self._now)

    def _end_messages(self) -> None:
        """Bounce and remove what has no recipients left.

        Raises:
            CleanerDied
        """
        gone: list[int] = []
        while (number := self._over.take(self._now)) is not None:
            try:
                if not ending.is_over(number, self._log):
                    continue
                ending.report_failures(number, self._settings.identity, self._env, self._log)
                ending.remove_info(number, self._log)
            except ending.NotYet:
                self._over.add(self._now + RETRY_TROUBLE, number)
            else:
                gone.append(number)
        self._cleaner.ask(clean.Action.FOOP, gone)

    def _look_again(self) -> None:
        while (number := self._unknown.take(self._now)) is not None:
            self._add(inventory.examine(number, self._log))

    def _clean_up(self) -> None:
        """Look at some files for whether they were left behind, and remove those.

        Raises:
            CleanerDied
        """
        if self._cleaner.busy:
            # mess/N of a message that qmail-clean is just removing looks abandoned: asked
            # twice, it could remove the next message that gets the number N.
            return
        if self._cleanup is None:
            if self._now < self._cleanup_at:
                return
            self._cleanup_at = self._now + CLEANUP_INTERVAL
            self._cleanup = inventory.left_behind(self._now)
        abandoned: list[int] = []
        for _ in range(CLEANUP_STEP):
            try:
                number = next(self._cleanup)
            except StopIteration:
                self._cleanup = None
                break
            if number is not None:
                abandoned.append(number)
        self._cleaner.ask(clean.Action.FOOP, abandoned)

    def _reread_controls(self) -> None:
        try:
            control.enter_home(self._env)
        except control.ControlError:
            self._log.line("alert: unable to reread controls: unable to switch to home directory")
            return
        try:
            self._intake.routing = controls.read_routing(self._settings)
        except control.ControlError:
            self._log.line("alert: unable to reread controls")
        while True:
            try:
                os.chdir("queue")
                return
            except OSError:
                self._log.line("alert: unable to switch back to queue directory; HELP! sleeping...")
                self._log.flush()
                time.sleep(10)
