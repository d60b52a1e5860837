"""Waiting for the disk beside the queue server's loop."""

import os
import threading
from collections import deque
from queue import SimpleQueue

from pyqmail.queue import store
from ucspi import log


class Committer:
    """A thread that makes one batch of messages after the other durable."""

    def __init__(self, wake: int) -> None:
        """Start the thread; it writes a byte to wake after each batch."""
        self._wake = wake
        self._todo: SimpleQueue[list[store.Incoming]] = SimpleQueue()
        self.results: deque[list[int]] = deque()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, batch: list[store.Incoming]) -> None:
        """Have a batch committed; its statuses will be appended to results."""
        self._todo.put(batch)

    def _run(self) -> None:
        try:
            while True:
                self.results.append(store.commit(self._todo.get()))
                self._tell()
        except BaseException as error:
            # Nobody knows what is on disk: the clients will try again with a new server.
            log.event({}, f"qmail-queue-server: commit: {type(error).__name__}: {error}")
            os._exit(111)

    def _tell(self) -> None:
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            pass  # full: the loop will wake up anyway
