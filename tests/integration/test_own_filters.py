"""A user's own filters: for this user's mail alone, as this user, with a word in SMTP."""

import smtplib
from pathlib import Path

from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, SUBMITTERS, Account, Endpoint, trusting_context

FILTERS = ".ofmipd/filters"
MARK = """\
#!/bin/sh
echo "X-Mark: $(id -u) $HOME $([ . -ef "$HOME" ] && echo is here)"
exec cat
"""


def put(appliance: Appliance, account: Account, name: str, content: str) -> None:
    status, printed = appliance.postern(
        "user", "file", "put", account.address, name, data=content.encode()
    )
    assert status == 0, printed


def submit(at: Endpoint, account: Account) -> tuple[int, bytes]:
    """Submit a message to oneself; return the reply to its end."""
    message = mail.compose(account.address, account.address)
    with smtplib.SMTP(at.host, at.ports["submission"], timeout=30) as client:
        client.starttls(context=trusting_context())
        client.login(*account)
        client.mail(account.address)
        client.rcpt(account.address)
        return client.data(message.raw)


def fetch_one(at: Endpoint, account: Account, scratch: Path) -> bytes:
    found = wait.until("the message", lambda: FETCHERS["poplib-implicit"](at, account, scratch))
    assert len(found) == 1
    return found[0]


def test_filter_is_for_its_users_mail_and_runs_as_the_user(
    appliance: Appliance, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    other = appliance.add_account()
    put(appliance, account, "bin/mark", MARK)
    put(appliance, account, FILTERS, "# mine\n./bin/mark\n")
    for sender in (account, other):
        message = mail.compose(sender.address, sender.address)
        SUBMITTERS["smtplib-starttls"](at, sender, message, sender.address, tmp_path)
    marked, plain = (fetch_one(at, whose, tmp_path) for whose in (account, other))
    _, listed = appliance.postern("user", "list")
    uid = next(row.split("\t")[2] for row in listed.splitlines() if account.address in row)
    home = f"/home/{account.address.partition('@')[2]}/{account.address.partition('@')[0]}"
    assert mail.header(marked, "X-Mark") == [f"{uid} {home} is here".encode()]
    assert mail.header(plain, "X-Mark") == []
    # The system's filter came after it.
    tops = [line.partition(b":")[0] for line in marked.split(b"\r\n")]
    assert b"(ucspitls acceptutils authup" in marked
    assert tops.index(b"Received") < tops.index(b"X-Mark")


def test_filters_own_words_reach_the_client(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    put(appliance, account, "bin/no", "#!/bin/sh\necho no mail on Sundays >&2\nexit 100\n")
    put(appliance, account, FILTERS, "./bin/no\n")
    assert submit(at, account) == (554, b"no mail on Sundays")


def test_filter_cannot_write_in_somebody_elses_name(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    other = appliance.add_account()
    put(appliance, account, FILTERS, f"sed s/^From:.*/From:{other.address}/\n")
    code, text = submit(at, account)
    assert code == 554 and b"somebody else's" in text


def test_list_that_others_may_write_is_not_believed(
    appliance: Appliance, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    put(appliance, account, FILTERS, "true\n")
    _, listed = appliance.postern("user", "list")
    uid = next(row.split("\t")[2] for row in listed.splitlines() if account.address in row)
    box, _, domain = account.address.partition("@")
    path = f"/home/{domain}/{box}/{FILTERS}"
    assert appliance.run(["chmod", "g+w", path], user=f"{uid}:{uid}")[0] == 0
    assert submit(at, account) == (451, b"your .ofmipd/filters is writable by others (#4.7.0)")
    status, printed = appliance.postern("user", "file", "del", account.address, FILTERS)
    assert status == 0, printed
    assert submit(at, account)[0] == 250
