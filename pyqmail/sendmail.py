"""sendmail: what other programs call to send mail (sendmail(8)).

    sendmail [ -t ] [ -fsender ] [ -Fname ] [ -bm | -bp | -bs ] [ recipient ... ]

Called as mailq it lists the queue. Options of Sendmail that mean nothing here are ignored.
"""

import os

from pyqmail import inject
from ucspi import chain, log

USAGE = "usage: sendmail [ -t ] [ -fsender ] [ -Fname ] [ -bp ] [ -bs ] [ arg ... ]"

# What sendmail -bs lets qmail-smtpd know when nobody else has.
LOCAL_CLIENT = {
    "RELAYCLIENT": "",
    "DATABYTES": "0",
    "PROTO": "TCP",
    "TCPLOCALIP": "127.0.0.1",
    "TCPLOCALHOST": "localhost",
    "TCPREMOTEIP": "127.0.0.1",
    "TCPREMOTEHOST": "localhost",
    "TCPREMOTEINFO": "sendmail-bs",
    "QMAIL_RECIPIENT_SOCKET": "",  # which answers nobody but qmaild
}


def main(argv: list[str], env: dict[str, str]) -> int:
    """Put the options of sendmail into the words of qmail-inject and its neighbours, and run them.

    Returns:
        The exit status of the program that was run; 100 for misuse.
    """
    program = os.path.basename(argv[0])
    if program == "newaliases":
        log.event(env, "sendmail: fatal: please use postern alias instead")
        return inject.EXIT_PERMANENT
    if program == "mailq":
        return chain.run(["qmail-qread"], env)
    from_header = False
    sender: str | None = None
    full_name: str | None = None
    recipients: list[str] = []
    env = dict(env)
    try:
        for letter, value in inject.scan(argv[1:], "vimtx", "efpoBFbNRV", "EJ"):
            if not letter:
                recipients.append(value)
            elif letter == "t":
                from_header = True
            elif letter == "f":
                sender = value
            elif letter == "F":
                full_name = value
            elif letter == "b" and value[:1] == "p":
                return chain.run(["qmail-qread"], env)
            elif letter == "b" and value[:1] == "s":
                return chain.run(["qmail-smtpd"], env if "PROTO" in env else env | LOCAL_CLIENT)
            elif letter == "b" and value[:1] != "m":
                raise inject.Fatal(inject.EXIT_PERMANENT, "")
    except inject.Fatal:
        log.event(env, "sendmail: " + USAGE)
        return inject.EXIT_PERMANENT
    command = ["qmail-inject", "-H" if from_header else "-a"]
    if sender is not None:
        command += ["-f", sender]
        name_sender(sender, env)
    if full_name is not None:
        env["MAILNAME"] = full_name
    return inject.main([*command, "--", *recipients], env)


def name_sender(sender: str, env: dict[str, str]) -> None:
    """Let the author be the sender of -f, and nobody's personal name stand beside it."""
    for name in ("QMAILNAME", "MAILNAME", "NAME", "QMAILHOST", "MAILHOST"):
        env.pop(name, None)
    user, at, host = sender.removeprefix("<").removesuffix(">").rpartition("@")
    env["QMAILUSER"] = user if at else host
    if at:
        env["QMAILHOST"] = host
