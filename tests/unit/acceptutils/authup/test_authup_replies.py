"""Every failure's words, in both protocols."""

import pytest

from acceptutils.authup import replies
from acceptutils.authup.replies import Failure


@pytest.mark.parametrize(
    ("failure", "smtp", "pop3"),
    [
        (
            replies.CONTROL,
            b"421 authup unable to read controls (#4.3.0)",
            b"unable to read controls",
        ),
        (replies.NO_MEMORY, b"451 authup out of memory (#4.3.0)", b"out of memory"),
        (replies.TIMEOUT, b"451 authup timeout (#4.4.2)", b"timeout"),
        (replies.PIPE, b"454 authup unable to open pipe (#4.3.0)", b"unable to open pipe"),
        (replies.READ, b"454 authup unable to read pipe (#4.3.0)", b"unable to read pipe"),
        (replies.WRITE, b"454 authup unable to write pipe (#4.3.0)", b"unable to write pipe"),
        (replies.FORK, b"454 authup unable to fork (#4.3.0)", b"unable to fork"),
        (
            replies.WAIT,
            b"454 authup unable to wait for child (#4.3.0)",
            b"unable to wait for child",
        ),
        (replies.CRASH, b"454 authup aack, child crashed (#4.3.0)", b"aack, child crashed"),
        (
            replies.PROTOCOL,
            b"501 authup protocol exchange ended (#5.0.0)",
            b"protocol exchange ended",
        ),
        (
            replies.STARTTLS,
            b"454 authup TLS temporarily not available (#5.7.3)",
            b"TLS temporarily not available",
        ),
        (replies.BAD_AUTH, b"535 authup authorization failed (#5.7.0)", b"authorization failed"),
        (
            replies.NO_AUTH,
            b"504 authup auth type unimplemented (#5.5.1)",
            b"auth type unimplemented",
        ),
        (replies.INPUT, b"501 authup malformed auth input (#5.5.4)", b"malformed auth input"),
        (
            replies.CANCELLED,
            b"501 authup auth exchange cancelled (#5.0.0)",
            b"auth exchange cancelled",
        ),
        (replies.NEED_TLS, b"530 authup Must start TLS first (#5.7.0)", b"Must start TLS first"),
    ],
)
def test_failure(failure: Failure, smtp: bytes, pop3: bytes) -> None:
    assert failure.smtp() == smtp + b"\r\n"
    assert failure.pop3() == b"-ERR authup " + pop3 + b"\r\n"
