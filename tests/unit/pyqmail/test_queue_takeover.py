"""A queue written by hand to netqmail's INTERNALS, taken over; and what we leave for netqmail."""

import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import client, ids, layout

Queue = Any  # these two are in conftest.py
Send = Any

RECEIVED = b"Received: (qmail 815 invoked by uid 1000); 22 Nov 2025 10:00:00 -0000\n"
TEXT = RECEIVED + b"Subject: kept\n\nNot to be lost.\n"


class ByHand:
    """Writes messages in the states of INTERNALS, section 2, as netqmail's programs do."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue.directory

    def write(self, path: str, content: bytes, owner: int, mode: int) -> Path:
        file: Path = self.queue / path
        file.write_bytes(content)
        file.chmod(mode)
        if os.geteuid() == 0:
            os.chown(file, owner, ids.lookup().group)
        return file

    def mess(self) -> int:
        """Make state S2: the number is that of the file's inode."""
        new = self.write("pid/815.1764000000.1", TEXT, ids.lookup().qmailq, 0o644)
        number = new.stat().st_ino
        os.link(new, self.queue / layout.mess(number))
        new.unlink()
        return number

    def intd(self, sender: bytes, *recipients: bytes) -> int:
        """Make state S3."""
        number = self.mess()
        envelope = b"u1000\0p815\0F" + sender + b"\0" + b"".join(b"T%b\0" % r for r in recipients)
        self.write(layout.intd(number), envelope, ids.lookup().qmailq, 0o644)
        return number

    def todo(self, sender: bytes, *recipients: bytes) -> int:
        """Make state S4."""
        number = self.intd(sender, *recipients)
        os.link(self.queue / layout.intd(number), self.queue / layout.todo(number))
        return number

    def preprocessed(self, sender: bytes, local: bytes = b"", remote: bytes = b"") -> int:
        """Make state S5."""
        number = self.mess()
        self.add(number, info=b"F" + sender + b"\0", local=local, remote=remote)
        return number

    def add(self, number: int, **contents: bytes) -> None:
        """Add files of qmail-send's."""
        for name, content in contents.items():
            if content:
                path = layout.bounce(number) if name == "bounce" else layout.split(name, number)
                self.write(path, content, ids.lookup().qmails, 0o600)


def copied(queue: Queue) -> None:
    """Give every file another inode, as cp -a or tar do: no number is its inode's any more."""
    links: dict[int, Path] = {}
    for name in queue.files():
        path = queue.directory / name
        before = path.stat()
        new = path.with_name("copy")
        if before.st_ino in links:
            os.link(links[before.st_ino], new)
        else:
            new.write_bytes(path.read_bytes())
            os.chown(new, before.st_uid, before.st_gid)
            new.chmod(before.st_mode)
            os.utime(new, (before.st_atime, before.st_mtime))
            links[before.st_ino] = path
        new.rename(path)
    for name in queue.files():
        assert str((queue.directory / name).stat().st_ino) != Path(name).name


@pytest.mark.parametrize("restored", [False, True], ids=["in place", "from a copy"])
def test_nothing_of_a_queue_of_netqmails_is_lost(
    queue: Queue, start: Callable[..., Send], restored: bool
) -> None:
    hand = ByHand(queue)
    half = hand.preprocessed(
        b"joe@far.example",
        local=b"Dann@mx.example.org\0Tbob@mx.example.org\0",
        remote=b"Dx@far.example\0Ty@far.example\0",
    )
    failing = hand.preprocessed(b"joe@far.example", remote=b"Dgone@far.example\0Tz@far.example\0")
    hand.add(failing, bounce=b"<gone@far.example>:\nThere is no such box.\n\n")
    over = hand.preprocessed(b"liz@far.example")
    hand.add(over, bounce=b"<nobody@far.example>:\nNot here.\n\n")
    listed = hand.preprocessed(b"list-@far.example-@[]", remote=b"Tsub@far.example\0")
    fresh = hand.todo(b"", b"dan@mx.example.org", b"w@far.example")
    torn = hand.todo(b"sue@far.example", b"eve@mx.example.org")
    (queue.directory / layout.intd(torn)).unlink()
    hand.add(torn, info=b"Fsue@", local=b"Tmallory@mx.exam", remote=b"Tmallory@far.example\0")
    abandoned = hand.intd(b"never@far.example", b"never@mx.example.org")
    bare = hand.mess()
    hand.write("pid/816.1764000000.1", b"half a mess", ids.lookup().qmailq, 0o644)
    left = [layout.mess(bare), layout.mess(abandoned), layout.intd(abandoned)]
    left.append("pid/816.1764000000.1")
    if restored:
        copied(queue)
    queue.start_server()
    send = start()
    seen = set()
    while len(seen) < 9:
        for fake in send.fakes:
            if not fake.quiet():
                request = fake.request()
                number = int(request.message.partition(b"/")[2])
                assert request.message == b"%d/%d" % (number % 23, number)
                text = (queue.directory / layout.mess(number)).read_bytes()
                known = number in (half, failing, over, listed, fresh, torn)
                seen.add((request.sender, request.recipient, text == TEXT))
                assert known or request.sender == b""
                if not known:
                    assert text.endswith(b"\nReturn-Path: <" + request.recipient + b">\n" + TEXT)
                    assert b"There is no such box.\n" in text or b"Not here.\n" in text
                fake.report(request, b"Kok\n")
    assert seen == {
        (b"joe@far.example", b"bob@mx.example.org", True),
        (b"joe@far.example", b"y@far.example", True),
        (b"joe@far.example", b"z@far.example", True),
        (b"list-sub=far.example@far.example", b"sub@far.example", True),
        (b"", b"dan@mx.example.org", True),
        (b"", b"w@far.example", True),
        (b"sue@far.example", b"eve@mx.example.org", True),
        (b"", b"joe@far.example", False),
        (b"", b"liz@far.example", False),
    }
    send.wait_count(b"end msg ", 8)
    for _ in range(30):  # new mail does not get the numbers of what is there
        injection = client.open_queue(queue.env)
        injection.write(b"Subject: new\n\n")
        assert injection.finish(b"s@x", [b"new@mx.example.org"]).status == 0
        request = send.local.request()
        assert request.recipient == b"new@mx.example.org"
        send.local.report(request, b"K\n")
    send.wait_count(b"end msg ", 38)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == sorted(left)
    assert (queue.directory / layout.mess(bare)).read_bytes() == TEXT


def test_what_is_left_is_what_netqmail_would_leave(
    queue: Queue, start: Callable[..., Send]
) -> None:
    queue.start_server()
    send = start()
    send.wait_log(rb"^status")
    injection = client.open_queue(queue.env)
    injection.write(b"Subject: x\n\nbody\n")
    recipients = [b"ann@mx.example.org", b"bob@mx.example.org", b"x@far.example", b"y@far.example"]
    injection.finish(b"joe@far.example", recipients)
    for fake, texts in (
        (send.local, (b"Kok\n", b"Zlater\n")),
        (send.remote, (b"Dno\n", b"Zlater\n")),
    ):
        for text in texts:
            fake.report(fake.request(), text)
    send.wait_count(b": deferral: ", 2)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    injection = client.open_queue(queue.env)  # while no qmail-send runs
    injection.write(b"Subject: y\n\n")
    second = injection.finish(b"", [b"#@[]", b"z"])
    found: dict[str, tuple[bytes, int, int, int]] = {}
    for name in queue.files():
        status = (queue.directory / name).stat()
        content = (queue.directory / name).read_bytes()
        if name.startswith("mess/"):
            assert name == layout.mess(status.st_ino)
            content = content.partition(b"\n")[2]  # Received has its own test
            name = f"{name} {content[9:10].decode()}"
        kind = re.sub(r"\d+", "N", name)
        found[kind] = (content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_nlink)
    # The queue server becomes qmailq; qmail-send is started by the test, as whoever runs it.
    me = os.getuid()
    qmailq = me or ids.lookup().qmailq
    todo = b"u%d\0p%d\0F\0T#@[]\0Tz\0" % (me, second.pid)
    assert found == {
        "mess/N/N x": (b"Subject: x\n\nbody\n", 0o644, qmailq, 1),
        "mess/N/N y": (b"Subject: y\n\n", 0o644, qmailq, 1),
        "intd/N": (todo, 0o644, qmailq, 2),
        "todo/N": (todo, 0o644, qmailq, 2),
        "info/N/N": (b"Fjoe@far.example\0", 0o600, me, 1),
        "local/N/N": (b"Dann@mx.example.org\0Tbob@mx.example.org\0", 0o600, me, 1),
        "remote/N/N": (b"Dx@far.example\0Ty@far.example\0", 0o600, me, 1),
        "bounce/N": (b"<x@far.example>:\nno\n\n", 0o600, me, 1),
    }
