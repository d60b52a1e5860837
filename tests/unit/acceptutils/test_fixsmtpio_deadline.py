"""How long a session may take: a clock in hand, no waiting."""

from acceptutils.fixsmtpio.deadline import (
    COMMAND_SECONDS,
    END_SECONDS,
    GRACE,
    MESSAGE_RATE,
    SILENT_END_SECONDS,
    Deadline,
)
from acceptutils.fixsmtpio.rules import parse
from acceptutils.fixsmtpio.session import Context, Session


def greeted() -> Session:
    session = Session(parse(b"").select({}), Context())
    session.server(b"220 hi\r\n")
    return session


def test_silence_is_left_to_the_servers_timeout_for_a_while() -> None:
    deadline = Deadline(1200, now=0.0)
    assert deadline.at(greeted(), 5.0) == 1200 + GRACE
    deadline.moved(100.0)
    assert deadline.at(greeted(), 100.0) == 1300 + GRACE


def test_command_that_drips_in_has_a_deadline_of_its_own() -> None:
    deadline, session = Deadline(1200, now=0.0), greeted()
    for second in range(10):
        session.client(b"N")
        deadline.moved(float(second))
        assert deadline.at(session, float(second)) == COMMAND_SECONDS
    session.client(b"\r\n")
    assert deadline.at(session, 10.0) > COMMAND_SECONDS
    session.client(b"N")
    assert deadline.at(session, 11.0) == 11.0 + COMMAND_SECONDS


def test_each_command_has_its_own_time_even_when_the_next_starts_in_the_same_read() -> None:
    deadline, session = Deadline(1200, now=0.0), greeted()
    for second in range(0, 1000, 100):
        session.client(b"OOP\r\nN" if second else b"N")
        session.server(b"250 ok\r\n" if second else b"")
        deadline.moved(float(second))
        assert deadline.at(session, float(second)) == second + COMMAND_SECONDS


def test_short_timeout_holds_for_commands_too() -> None:
    deadline, session = Deadline(10, now=0.0), greeted()
    session.client(b"N")
    assert deadline.at(session, 0.0) == 10.0


def test_message_has_to_come_at_some_rate() -> None:
    deadline, session = Deadline(60, now=0.0), greeted()
    session.client(b"DATA\r\n")
    session.server(b"354 go\r\n")
    assert deadline.at(session, 0.0) == 60.0
    session.client(b"x" * MESSAGE_RATE * 1000)
    deadline.moved(59.0)
    assert deadline.at(session, 59.0) == 59.0 + 60.0 + GRACE  # only silence would end it
    for second in range(60, 1060):
        deadline.moved(float(second))
    assert deadline.at(session, 1059.0) == 60.0 + 1000.0
    session.client(b"\r\n.\r\n")
    assert deadline.at(session, 1059.0) == 1059.0 + 60.0 + GRACE


def test_end_is_not_waited_for_as_long() -> None:
    deadline, session = Deadline(1200, now=0.0), greeted()
    session.client_end()
    assert deadline.at(session, 0.0) == SILENT_END_SECONDS
    for second in range(0, 110, 10):
        deadline.moved(float(second))
        assert deadline.at(session, float(second)) == min(second + SILENT_END_SECONDS, END_SECONDS)


def test_client_that_takes_its_replies_byte_by_byte_is_not_served_for_ever() -> None:
    deadline, session = Deadline(60, now=0.0), greeted()
    for second in range(0, 90, 10):
        deadline.moved(float(second))
        assert deadline.at(session, float(second), backlog=True) == 60.0 + GRACE
    assert deadline.at(session, 80.0, backlog=False) == 80.0 + 60.0 + GRACE
    assert deadline.at(session, 85.0, backlog=True) == 80.0 + 60.0 + GRACE
