"""Our rblsmtpd and that of ucspi-tcp say the same where both know what to say."""

import pytest
from harness.foreign import Foreign

DIALOGUE = (
    b"HELO a\r\nEHLO b\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\nrset\r\n"
    b"NoOp\r\nHELP\r\nVRFY x\r\n\r\n quit\r\nSTARTTLS\r\nQUIT now\r\nNOOP\r\n"
)


def said(foreign: Foreign, program: str, words: list[str], data: bytes) -> tuple[int, list[str]]:
    """Return the exit status, and the lines on standard output and then those of the log."""
    script = (
        '"$@" 2>/tmp/log; status=$?; sed "s/pid [0-9]*/pid N/; s/ ip=.*//" /tmp/log; exit $status'
    )
    variables, arguments = words[: words.index("--")], words[words.index("--") + 1 :]
    command = ["env", "TCPREMOTEIP=192.0.2.1", *variables, program, *arguments]
    status, printed = foreign.appliance.run(["sh", "-c", script, "sh", *command], data=data)
    return status, [line for line in printed.splitlines() if "usage" not in line]


@pytest.mark.parametrize(
    "words",
    [
        ["RBLSMTPD=go away", "--", "echo", "in"],
        ["RBLSMTPD=-go away", "--", "-B", "-t", "5", "echo", "in"],
        ["RBLSMTPD=odd \x01 text \x7f", "--", "echo", "in"],
        ["RBLSMTPD=", "--", "-b", "-r", "bl.example", "echo", "in"],
        ["RBLSMTPD=", "--", "sh", "-c", "exit 7"],
        ["RBLSMTPD=", "--"],
        ["RBLSMTPD=", "--", "-c", "-C", "-b"],
        ["RBLSMTPD=", "--", "-t"],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode(),
)
def test_both_answer_alike(words: list[str], foreign: Foreign) -> None:
    ours = said(foreign, "rblsmtpd", words, DIALOGUE)
    theirs = said(foreign, "rblsmtpd.ucspi-tcp", words, DIALOGUE)
    assert ours[0] == theirs[0]
    if ours[0] != 100:
        assert ours == theirs
