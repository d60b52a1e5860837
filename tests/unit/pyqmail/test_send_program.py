"""qmail-send with a real qmail-clean and queue server; the spawners are the test's own."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyqmail.queue import client, layout
from pyqmail.send import spawnprotocol as sp
from pyqmail.send.loop import QmailSend

Queue = Any  # these two are in conftest.py
Send = Any
MESSAGE = b"Subject: hello\n\nbody\n"


def control(queue: Queue, name: str, text: str) -> None:
    (queue.home / "control" / name).write_text(text)


def path(queue: Queue, directory: str, number: int) -> Path:
    return Path(queue.directory / layout.split(directory, number))


LOCAL = b"ann@mx.example.org"


def test_a_local_delivery_and_its_log(queue: Queue, start: Callable[..., Send]) -> None:
    number = queue.put(b"joe@example.net", LOCAL)
    send = start()
    request = send.local.request()
    split = b"%d/%d" % (number % 23, number)
    assert request == sp.Request(request.delivery, split, b"joe@example.net", LOCAL)
    # The short way; test_send_direct.py has more of it.
    assert queue.files() == sorted([layout.mess(number), layout.intd(number), layout.todo(number)])
    send.local.report(request, b"Kdid 1+0+0\n")
    send.wait_log(rb"^end msg ")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []
    assert send.log.splitlines() == [
        b"status: local 0/10 remote 0/20",
        b"new msg %d" % number,
        b"info msg %d: bytes 21 from <joe@example.net> qp 4242 uid 1000" % number,
        b"starting delivery 1: msg %d to local ann@mx.example.org" % number,
        b"status: local 1/10 remote 0/20",
        b"delivery 1: success: did_1+0+0/",
        b"status: local 0/10 remote 0/20",
        b"end msg %d" % number,
        b"status: exiting",
    ]


def test_what_is_in_the_queue_while_it_is_delivered(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"joe@example.net", LOCAL, b"bob@far.example")
    send = start()
    send.local.request()
    assert queue.files() == sorted(
        [layout.mess(number), *(layout.split(n, number) for n in ("info", "local", "remote"))]
    )
    assert path(queue, "info", number).read_bytes() == b"Fjoe@example.net\0"
    assert path(queue, "local", number).read_bytes() == b"Tann@mx.example.org\0"
    assert path(queue, "remote", number).read_bytes() == b"Tbob@far.example\0"


def test_the_trigger_wakes_it(queue: Queue, start: Callable[..., Send]) -> None:
    send = start()
    send.wait_log(rb"^status: local")
    for _ in range(3):
        queue.put(b"", LOCAL)
        queue.pull()
        request = send.local.request()
        send.local.report(request, b"K\n")


def test_recipients_go_where_the_control_files_say(
    queue: Queue, start: Callable[..., Send]
) -> None:
    control(queue, "locals", "here.example\n")
    control(queue, "virtualdomains", "v.example:virt\n")
    control(queue, "envnoathost", "here.example\n")
    number = queue.put(b"s@x", b"a@Here.Example", b"b@v.example", b"c@far.example", b"d")
    send = start()
    requests = [send.local.request() for _ in range(3)]
    assert [r.recipient for r in requests] == [
        b"a@Here.Example",
        b"virt-b@v.example",
        b"d@here.example",
    ]
    assert send.remote.request().recipient == b"c@far.example"
    assert path(queue, "remote", number).read_bytes() == b"Tc@far.example\0"


def test_done_recipients_are_marked_and_not_tried_again(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"s@x", b"a@mx.example.org", b"b@mx.example.org")
    send = start()
    first, second = send.local.request(), send.local.request()
    send.local.report(first, b"Kok\n")
    send.local.report(second, b"Zlater\n")
    send.wait_log(rb"^delivery 2: deferral: later/$")
    send.wait_log(rb"delivery 2[^$]*status: local 0/10")
    assert path(queue, "local", number).read_bytes() == b"Da@mx.example.org\0Tb@mx.example.org\0"
    send.signal(signal.SIGALRM)
    again = send.local.request()
    assert again.recipient == b"b@mx.example.org"
    send.local.report(again, b"Kok\n")
    send.wait_log(rb"^end msg")


def test_limits_are_the_smaller_of_control_and_spawner(
    queue: Queue, start: Callable[..., Send]
) -> None:
    control(queue, "concurrencylocal", "2\n")
    recipients = [b"%d@mx.example.org" % n for n in range(4)]
    remote = [b"%d@far.example" % n for n in range(4)]
    queue.put(b"s@x", *recipients, *remote)
    send = start(120, 3)
    held = [send.local.request() for _ in range(2)]
    for _ in range(3):
        send.remote.request()
    send.wait_log(rb"^status: local 2/2 remote 3/3$")
    assert send.local.quiet() and send.remote.quiet()
    assert sorted(r.delivery for r in held) == [0, 1]
    send.local.report(held[1], b"K\n")
    assert send.local.request().delivery == held[1].delivery


def test_no_local_deliveries_at_all_with_a_limit_of_zero(
    queue: Queue, start: Callable[..., Send]
) -> None:
    control(queue, "concurrencylocal", "0\n")
    queue.put(b"s@x", LOCAL, b"a@far.example")
    send = start()
    send.remote.request()
    assert send.local.quiet()


def test_failure_becomes_a_bounce_in_netqmails_words(
    queue: Queue, start: Callable[..., Send]
) -> None:
    control(queue, "virtualdomains", "v.example:virt\n")
    number = queue.put(b"joe@example.net", b"Q x@v.example", b"b@mx.example.org")
    queue.start_server()
    send = start()
    for _ in range(2):
        request = send.local.request()
        send.local.report(request, b"DSorry, no mailbox here by that name. (#5.1.1)\n\n\nx\n")
    logged = send.wait_log(rb"^bounce msg (\d+) qp (\d+)$")
    assert int(logged[1]) == number
    send.wait_log(rb"^info msg \d+: bytes \d+ from <> qp %s uid %d$" % (logged[2], os.getuid()))
    # The recipient of the bounce is not here.
    bounce = send.remote.request()
    assert (bounce.sender, bounce.recipient) == (b"", b"joe@example.net")
    text = (queue.directory / "mess" / bounce.message.decode()).read_bytes()
    received, date, rest = text.split(b"\n", 2)
    assert received.startswith(b"Received: (qmail " + logged[2])
    assert re.fullmatch(rb"Date: \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d -0000", date)
    assert rest == (
        b"From: MAILER-DAEMON@mx.example.org\n"
        b"To: joe@example.net\n"
        b"Subject: failure notice\n"
        b"\n"
        b"Hi. This is the qmail-send program at mx.example.org.\n"
        b"I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        b"This is a permanent error; I've given up. Sorry it didn't work out.\n"
        b"\n"
        b"<Q x@v.example>:\n"
        b"Sorry, no mailbox here by that name. (#5.1.1)\n//x\n"
        b"\n"
        b"<b@mx.example.org>:\n"
        b"Sorry, no mailbox here by that name. (#5.1.1)\n//x\n"
        b"\n"
        b"--- Below this line is a copy of the message.\n"
        b"\n"
        b"Return-Path: <joe@example.net>\n" + MESSAGE
    )


@pytest.mark.parametrize(
    ("sender", "bounce_sender", "bounce_recipient"),
    [
        (b"list-@example.net-@[]", b"", b"list-@example.net"),
        (b"", b"#@[]", b"postmaster@mx.example.org"),
    ],
)
def test_bounces_go_to_the_owner_and_double_bounces_to_the_postmaster(
    queue: Queue,
    start: Callable[..., Send],
    sender: bytes,
    bounce_sender: bytes,
    bounce_recipient: bytes,
) -> None:
    queue.put(sender, b"a@far.example")
    queue.start_server()
    send = start()
    send.remote.report(send.remote.request(), b"Dno\n")
    channel = send.local if b"mx.example.org" in bounce_recipient else send.remote
    bounce = channel.request()
    assert (bounce.sender, bounce.recipient) == (bounce_sender, bounce_recipient)
    text = (queue.directory / "mess" / bounce.message.decode()).read_bytes()
    if not sender:
        assert b"\nI tried to deliver a bounce message to this address, but the bounce" in text
        assert b"\n--- Below this line is the original bounce.\n\nReturn-Path: <>\n" in text


@pytest.mark.parametrize(
    ("sender", "double", "line"),
    [
        (b"#@[]", "postmaster", rb"^triple bounce: discarding bounce/\d+$"),
        (b"", "", rb"^double bounce: discarding bounce/\d+$"),
    ],
)
def test_discarded_bounces(
    queue: Queue, start: Callable[..., Send], sender: bytes, double: str, line: bytes
) -> None:
    control(queue, "doublebounceto", double + "\n")
    queue.put(sender, b"a@far.example")
    send = start()  # without a queue server: nothing may be queued
    send.remote.report(send.remote.request(), b"Dno\n")
    send.wait_log(line)
    send.wait_log(rb"^end msg")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []


@pytest.mark.parametrize("torn", [b"<c@far.exa", b"<c@far.example>:\nno\n", b"\0\0\0", b"x"])
def test_a_failure_after_one_that_a_crash_has_cut_short_is_a_paragraph_of_its_own(
    queue: Queue, start: Callable[..., Send], torn: bytes
) -> None:
    number = queue.put(b"joe@example.net", b"a@far.example", b"b@far.example")
    send = start()
    first, second = send.remote.request(), send.remote.request()
    (queue.directory / layout.bounce(number)).write_bytes(torn)
    send.remote.report(first, b"Dno\n")
    send.remote.report(second, b"Dno\n")
    send.wait_log(rb"^warning: trouble injecting bounce message")  # there is no queue server
    assert (queue.directory / layout.bounce(number)).read_bytes() == (
        torn + b"\n\n<a@far.example>:\nno\n\n<b@far.example>:\nno\n\n"
    )


def test_verp_gives_each_recipient_its_sender(queue: Queue, start: Callable[..., Send]) -> None:
    queue.put(b"list-@example.net-@[]", b"a@far.example", LOCAL)
    send = start()
    assert send.remote.request().sender == b"list-a=far.example@example.net"
    assert send.local.request().sender == b"list-ann=mx.example.org@example.net"


def test_an_old_message_is_given_up_at_a_deferral(queue: Queue, start: Callable[..., Send]) -> None:
    control(queue, "queuelifetime", "100\n")
    number = queue.put(b"#@[]", b"a@far.example")
    send = start()
    send.remote.report(send.remote.request(), b"Zbusy\n")
    send.wait_log(rb"^delivery 1: deferral: busy/$")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    old = time.time() - 101
    os.utime(path(queue, "info", number), (old, old))
    os.utime(path(queue, "remote", number), (old, old))
    send = start()
    send.remote.report(send.remote.request(), b"Zbusy\n")
    send.wait_log(
        rb"^delivery 1: failure: busy/I'm_not_going_to_try_again;"
        rb"_this_message_has_been_in_the_queue_too_long./$"
    )
    send.wait_log(rb"^end msg")


def test_the_schedule_survives_a_restart_and_a_crash_retries_too_soon(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"s@x", b"a@far.example", LOCAL)
    send = start()
    send.remote.report(send.remote.request(), b"Zbusy\n")
    send.local.report(send.local.request(), b"Zbusy\n")
    send.wait_log(rb"deferral[^$]*deferral")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    birth = path(queue, "info", number).stat().st_mtime
    assert path(queue, "local", number).stat().st_mtime - int(birth) in (100, 121)
    assert path(queue, "remote", number).stat().st_mtime - int(birth) in (400, 441)
    send = start()
    send.wait_log(rb"^status")
    send.signal(signal.SIGALRM)
    assert send.remote.request().recipient == b"a@far.example"


def test_term_waits_for_running_deliveries_and_starts_no_other(
    queue: Queue, start: Callable[..., Send]
) -> None:
    control(queue, "concurrencylocal", "1\n")
    queue.put(b"s@x", b"a@mx.example.org", b"b@mx.example.org")
    send = start()
    request = send.local.request()
    send.signal(signal.SIGTERM)
    queue.put(b"s@x", LOCAL)
    queue.pull()
    send.local.report(request, b"K\n")
    send.wait_log(rb"^status: local 0/1 remote 0/20 exitasap\nstatus: exiting$")
    assert send.wait() == 0
    assert send.local.quiet() or os.read(send.local.read, 1) == b""
    assert len(queue.queued()) == 1


def test_hup_rereads_locals_and_virtualdomains(queue: Queue, start: Callable[..., Send]) -> None:
    send = start()
    send.wait_log(rb"^status")
    control(queue, "locals", "new.example\n")
    control(queue, "virtualdomains", "v.example:virt\n")
    control(queue, "concurrencylocal", "1\n")  # not read again
    send.signal(signal.SIGHUP)
    queue.put(b"s@x", b"probe@far.example")  # once it is seen, so is what comes after the signal
    queue.pull()
    assert send.remote.request().recipient == b"probe@far.example"
    queue.put(b"s@x", b"a@new.example", b"b@v.example", b"c@mx.example.org")
    queue.pull()
    assert send.local.request().recipient == b"a@new.example"
    assert send.local.request().recipient == b"virt-b@v.example"
    assert send.remote.request().recipient == b"c@mx.example.org"


def test_a_dead_spawner_ends_it(queue: Queue, start: Callable[..., Send]) -> None:
    send = start()
    queue.put(b"s@x", LOCAL, b"a@far.example")
    queue.pull()
    send.local.request()
    remote = send.remote.request()
    send.local.close()
    send.wait_log(rb"^alert: oh no! lost spawn connection! dying...$")
    send.remote.report(remote, b"K\n")  # what still runs on the other side is waited for
    assert send.wait() == 0
    assert send.log.endswith(b"exitasap\nstatus: exiting\n")


def test_a_dead_cleaner_ends_it(queue: Queue, start: Callable[..., Send]) -> None:
    send = start()
    send.wait_log(rb"^status")
    queue.stop(send.clean, signal.SIGKILL)
    queue.put(b"s@x", LOCAL)
    queue.pull()
    send.wait_log(rb"^alert: oh no! lost qmail-clean connection! dying...$")
    assert send.wait() == 0
    assert len(queue.queued()) == 1


def test_only_one_at_a_time(queue: Queue, start: Callable[..., Send]) -> None:
    first = start()
    first.wait_log(rb"^status")
    second = start()
    assert second.wait() == 111
    assert second.log == b"alert: cannot start: qmail-send is already running\n"


def test_a_message_half_preprocessed_is_preprocessed_again(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"s@x", LOCAL)
    path(queue, "info", number).write_bytes(b"Fs@x\0")
    path(queue, "local", number).write_bytes(b"Dann@mx.exam")
    path(queue, "remote", number).write_bytes(b"Tgone@far.example\0")
    send = start()
    send.local.report(send.local.request(), b"K\n")
    send.wait_log(rb"^end msg")
    assert send.remote.quiet()


def test_what_belongs_to_no_message_is_removed_at_the_start(
    queue: Queue, start: Callable[..., Send]
) -> None:
    # Removals are not synced: a loss of power may bring back some files of a message that
    # was over, and the next one with its number would go to its recipients.
    number = queue.put(b"s@x", LOCAL)
    over = number + layout.SPLIT
    for name in ("info", "local", "remote"):
        path(queue, name, over).write_bytes(b"Tgone@far.example\0" if name != "info" else b"Fs@x\0")
    path(queue, "remote", over + 1).write_bytes(b"Tgone@far.example\0")
    for other in (number, over, over + 2):
        (queue.directory / layout.bounce(other)).write_bytes(b"<gone@far.example>:\nno\n\n")
    send = start()
    send.local.report(send.local.request(), b"K\n")
    send.wait_log(rb"^warning: unable to find mess/\d+/%d; forgetting msg %d$" % (over, over))
    send.wait_log(rb"^end msg %d$" % number)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []
    assert send.log.count(b"starting delivery") == 1
    assert b"bounce msg" not in send.log


def test_an_envelope_whose_message_is_gone_is_forgotten(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = 4711
    for name in ("intd", "todo"):
        (queue.directory / name / str(number)).write_bytes(b"u1\0p1\0Fs@x\0T" + LOCAL + b"\0")
    path(queue, "local", number).write_bytes(b"Told@mx.example.org\0")
    send = start()
    send.wait_log(rb"^warning: unable to stat mess/\d+/%d; forgetting msg %d$" % (number, number))
    queue.put(b"s@x", b"next@mx.example.org")
    queue.pull()
    request = send.local.request()
    assert request.recipient == b"next@mx.example.org"
    send.local.report(request, b"K\n")
    send.wait_log(rb"^end msg")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == []


def test_a_message_whose_recipients_are_all_done_ends(
    queue: Queue, start: Callable[..., Send]
) -> None:
    number = queue.put(b"s@x", LOCAL)
    for directory in ("intd", "todo"):
        (queue.directory / directory / str(number)).unlink()
    path(queue, "info", number).write_bytes(b"Fs@x\0")
    path(queue, "local", number).write_bytes(b"Dann@mx.example.org\0")
    os.utime(path(queue, "local", number), (1, 1))
    bare = queue.put(b"s@x")  # without any recipient
    send = start()
    send.wait_log(rb"^end msg %d$" % number)
    send.wait_log(rb"^end msg %d$" % bare)


def test_what_crashes_left_behind_is_removed_after_36_hours(
    queue: Queue, start: Callable[..., Send]
) -> None:
    old = time.time() - 129_700
    young = time.time() - 129_000
    keep, gone = queue.put(b"", LOCAL), queue.put(b"", LOCAL)
    for number, when in ((keep, young), (gone, old)):
        (queue.directory / layout.todo(number)).unlink()
        os.utime(path(queue, "mess", number), (when, when))
    (queue.directory / "pid" / "1.2.3").write_bytes(b"")
    os.utime(queue.directory / "pid" / "1.2.3", (old, old))
    send = start()
    send.wait_log(rb"^status")
    queue.put(b"#@[]", LOCAL)
    queue.pull()
    send.local.report(send.local.request(), b"K\n")
    send.wait_log(rb"^end msg")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == sorted([layout.intd(keep), layout.mess(keep)])


def test_a_bounce_that_cannot_be_queued_stays(queue: Queue, start: Callable[..., Send]) -> None:
    number = queue.put(b"joe@example.net", b"a@far.example")
    send = start()  # there is no queue server
    send.remote.report(send.remote.request(), b"Dno\n")
    send.wait_log(rb"^warning: trouble injecting bounce message, will try later$")
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert queue.files() == sorted(
        [layout.bounce(number), layout.info(number), layout.mess(number)]
    )
    queue.start_server()
    send = start()
    assert send.remote.request().recipient == b"joe@example.net"


def test_a_bounce_goes_through_qmailqueue_when_set(
    queue: Queue, start: Callable[..., Send], tmp_path: Path
) -> None:
    program = tmp_path / "queue.sh"
    copy = tmp_path / "copy"
    program.write_text(f"#!/bin/sh\ncat >{copy}; cat <&1 >{copy}.envelope\n")
    program.chmod(0o755)
    queue.env["QMAILQUEUE"] = str(program)
    queue.put(b"joe@example.net", b"a@far.example")
    send = start()
    send.remote.report(send.remote.request(), b"Dno\n")
    send.wait_log(rb"^bounce msg \d+ qp \d+$")
    assert b"Subject: failure notice" in copy.read_bytes()
    assert Path(f"{copy}.envelope").read_bytes() == b"F\0Tjoe@example.net\0\0"


def test_mangled_reports_defer(queue: Queue, start: Callable[..., Send]) -> None:
    queue.put(b"s@x", LOCAL)
    send = start()
    request = send.local.request()
    send.local.report(sp.Request(77, b"", b"", b""), b"Kwhat\n")
    send.local.report(request, b"hello\n")
    send.wait_log(rb"^warning: internal error: delivery report out of range$")
    send.wait_log(rb"^delivery 1: report mangled, will defer$")
    send.signal(signal.SIGALRM)
    assert send.local.request().recipient == LOCAL


def test_log_lines_cannot_be_forged_by_an_address(queue: Queue, start: Callable[..., Send]) -> None:
    queue.put(b"a\nnew msg 1 %s@x", b"b c@mx.example.org")
    send = start()
    send.wait_log(rb"^info msg \d+: bytes 21 from <a/new_msg_1__s@x> qp")
    send.wait_log(rb"^starting delivery 1: msg \d+ to local b_c@mx.example.org$")


def test_injected_through_the_server_it_is_delivered_at_once(
    queue: Queue, start: Callable[..., Send]
) -> None:
    queue.start_server()
    send = start()
    send.wait_log(rb"^status")
    injection = client.open_queue(queue.env)
    injection.write(MESSAGE)
    result = injection.finish(b"joe@example.net", [LOCAL])
    request = send.local.request()
    assert request.sender == b"joe@example.net"
    send.wait_log(rb"^info msg \d+: bytes \d+ from <joe@example.net> qp %d uid" % result.pid)


def test_without_locals_and_me_it_does_not_start(queue: Queue, start: Callable[..., Send]) -> None:
    (queue.home / "control" / "me").unlink()
    send = start()
    assert send.wait() == 111
    assert send.log == b"alert: cannot start: unable to read controls\n"


def test_many_messages_are_each_delivered_once(queue: Queue, start: Callable[..., Send]) -> None:
    recipients = {b"%d@mx.example.org" % number for number in range(70)}
    for recipient in recipients:
        queue.put(b"s@x", recipient)
    send = start()
    seen = []
    for _ in recipients:
        request = send.local.request()
        seen.append(request.recipient)
        send.local.report(request, b"K\n")
    send.wait_count(b"\nend msg ", 70)
    send.signal(signal.SIGTERM)
    assert send.wait() == 0
    assert sorted(seen) == sorted(recipients)
    assert queue.files() == []


def test_one_message_with_many_recipients_is_read_in_pieces(
    queue: Queue, start: Callable[..., Send]
) -> None:
    recipients = [b"%05d-%s@mx.example.org" % (n, b"x" * 900) for n in range(100)]  # > 64 KiB
    number = queue.put(b"s@x", *recipients)
    send = start()
    for index, recipient in enumerate(recipients):
        request = send.local.request()
        assert request.recipient == recipient
        send.wait_count(b"starting delivery ", index + 1)  # or the log's pipe would be full
        send.local.report(request, b"K\n" if request.recipient.startswith(b"0000") else b"Zx\n")
    send.wait_count(b": deferral: ", 90)
    content = path(queue, "local", number).read_bytes()
    marks = "".join(chr(record[0]) for record in content.split(b"\0")[:-1])
    assert marks == "D" * 10 + "T" * 90


def test_without_a_trigger_it_still_delivers(queue: Queue, start: Callable[..., Send]) -> None:
    (queue.directory / layout.TRIGGER).unlink()
    queue.put(b"s@x", LOCAL)
    send = start()
    assert send.local.request().recipient == LOCAL


def test_a_todo_file_that_makes_no_sense_stops_no_other(
    queue: Queue, start: Callable[..., Send]
) -> None:
    bad = queue.put(b"s@x", b"a@b")
    (queue.directory / layout.todo(bad)).write_bytes(b"u1\0garbage\0")
    queue.put(b"s@x", LOCAL)
    send = start()
    assert send.local.request().recipient == LOCAL
    send.wait_log(rb"^warning: unknown record type in todo/%d!$" % bad)
    assert (queue.directory / layout.todo(bad)).exists()
    assert not path(queue, "info", bad).exists()


def test_nothing_is_cleaned_up_while_qmail_clean_is_at_work(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # mess/N of a message that is just being removed looks abandoned. Asked for twice, the
    # second removal could hit the next message that gets the number N.
    number = queue.put(b"", LOCAL)
    (queue.directory / layout.todo(number)).unlink()
    os.utime(path(queue, "mess", number), (1, 1))
    monkeypatch.chdir(queue.directory)
    asked: list[int] = []

    class Cleaner:
        busy = True

        def ask(self, action: object, numbers: list[int]) -> None:
            asked.extend(numbers)

    send = object.__new__(QmailSend)
    send._cleaner = cleaner = Cleaner()  # type: ignore[assignment]
    send._cleanup = None
    send._cleanup_at = 0
    send._now = int(time.time())
    send._clean_up()
    assert asked == []
    cleaner.busy = False
    while not asked or send._cleanup is not None:
        send._clean_up()
    assert asked == [number]
