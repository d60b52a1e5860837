"""What the mail programs are told about accounts."""

import os
import subprocess
from pathlib import Path

import pytest

from appliance import publish
from appliance.layout import Layout
from appliance.publish import PublishError
from appliance.store import Account, Store
from ucspi import cdb


def account(uid: int, address: str) -> Account:
    local, _, domain = address.partition("@")
    return Account(uid, uid, f"/home/{domain}/{local}", "$6$x")


STORE = Store(
    ("example.net", "example.org"),
    {
        "alice@example.org": account(20000, "alice@example.org"),
        "b.o-b@example.net": account(20001, "b.o-b@example.net"),
    },
    {
        "info@example.org": ("alice@example.org", "b.o-b@example.net"),
        "first.last@example.org": ("info@example.org",),
        "out@example.org": ("bob@elsewhere.example",),
        "loop@example.org": ("pool@example.org",),
        "pool@example.org": ("loop@example.org", "alice@example.org"),
    },
    20002,
)


def test_assign_names_accounts_extensions_and_the_rest_of_each_domain() -> None:
    lines = publish.assign(STORE).decode().splitlines()
    by_itself = [line for line in lines if line.startswith("=") and ":alias:" in line]
    assert [line for line in lines if line not in by_itself] == [
        "=example.org-alice:alice@example.org:20000:20000:/home/example.org/alice:::",
        "+example.org-alice-:alice@example.org:20000:20000:/home/example.org/alice:-::",
        "=example.net-b.o-b:b.o-b@example.net:20001:20001:/home/example.net/b.o-b:::",
        "+example.net-b.o-b-:b.o-b@example.net:20001:20001:/home/example.net/b.o-b:-::",
        "+example.net-:alias:7790:2108:/var/qmail/alias:-:example.net-:",
        "+example.org-:alias:7790:2108:/var/qmail/alias:-:example.org-:",
        ".",
    ]


def test_aliases_and_roles_are_assigned_by_themselves() -> None:
    # Else the wildcard of an account alice would take alice-news, and mailer mailer-daemon.
    lines = publish.assign(STORE).decode().splitlines()
    for name in ("example.org-info", "example.org-postmaster", "example.net-mailer-daemon"):
        assert f"={name}:alias:7790:2108:/var/qmail/alias:-:{name}:" in lines


def test_an_account_with_a_roles_name_is_the_account() -> None:
    store = Store(
        ("example.org",), {"abuse@example.org": account(20000, "abuse@example.org")}, {}, 20001
    )
    lines = publish.assign(store).decode().splitlines()
    assert [line for line in lines if line.startswith("=example.org-abuse:")] == [
        "=example.org-abuse:abuse@example.org:20000:20000:/home/example.org/abuse:::"
    ]


def test_senders_are_the_account_and_whoever_an_alias_leads_to() -> None:
    alice, bob = b"alice@example.org", b"b.o-b@example.net"
    assert dict(publish.senders(STORE)) == {
        b"alice@example.org": alice,
        b"b.o-b@example.net": bob,
        b"info@example.org": alice + b"\0" + bob,
        b"first.last@example.org": alice + b"\0" + bob,
        b"loop@example.org": alice,
        b"pool@example.org": alice,
    }


def test_aliases_are_dot_qmail_files_with_colons_for_dots() -> None:
    files = publish.dot_qmail(STORE, b"./Maildir/\n")
    assert files[".qmail-example:org-info"] == b"&alice@example.org\n&b.o-b@example.net\n"
    assert files[".qmail-example:org-first:last"] == b"&info@example.org\n"


def test_every_domain_has_a_postmaster() -> None:
    files = publish.dot_qmail(STORE, b"&carol@example.com\n")
    for name in ("postmaster", "abuse", "root", "mailer-daemon"):
        assert files[f".qmail-{name}"] == b"&carol@example.com\n"
        assert files[f".qmail-example:net-{name}"] == b"&carol@example.com\n"


def test_postmaster_is_never_forwarded_to_itself() -> None:
    files = publish.dot_qmail(STORE, b"&postmaster@example.org\n")
    assert files[".qmail-example:org-postmaster"] == b"./Maildir/\n"
    assert files[".qmail-example:org-abuse"] == b"&postmaster@example.org\n"


def test_alias_named_postmaster_wins() -> None:
    aliases = {"postmaster@example.org": ("alice@example.org",)}
    files = publish.dot_qmail(Store(STORE.domains, STORE.accounts, aliases, 20002), b"./Maildir/\n")
    assert files[".qmail-example:org-postmaster"] == b"&alice@example.org\n"


def test_publish_writes_all_of_it(places: Layout) -> None:
    Path(places.control, "me").write_text("mail.example.org\n")
    publish.publish(places, STORE, publish.postmaster_instruction("alice@example.org"))
    assert Path(places.users, "cdb").read_bytes() == publish.assign(STORE)
    with cdb.Reader(places.users + "/senders.cdb") as senders:
        assert senders.get(b"alice@example.org") == b"alice@example.org"
    assert Path(places.alias, ".qmail-postmaster").read_text() == "&alice@example.org\n"
    assert Path(places.control, "rcpthosts").read_text().splitlines() == [
        "mail.example.org",
        "example.net",
        "example.org",
    ]
    for directory in (places.users, places.alias, places.control):
        for path in Path(directory).iterdir():
            assert not path.name.endswith(".tmp")


def test_later_publishing_keeps_the_postmaster(places: Layout) -> None:
    publish.publish(places, STORE, b"&carol@example.com\n")
    publish.publish(places, STORE.with_domains("new.example"))
    new = Path(places.alias, ".qmail-new:example-postmaster")
    assert new.read_text() == "&carol@example.com\n"


def test_without_control_files_there_is_nothing_to_do_in_control(places: Layout) -> None:
    publish.publish(places, STORE, b"./Maildir/\n")
    assert os.listdir(places.control) == []


def test_control_file_of_the_administrator_is_reported(places: Layout) -> None:
    Path(places.control, "me").write_text("mail.example.org\n")
    Path(places.control, "rcpthosts").write_text("example.org\n")
    assert publish.publish(places, STORE, b"./Maildir/\n").kept == ["control/rcpthosts"]


def test_failing_qmail_newu_is_an_error(places: Layout) -> None:
    Path(places.qmail, "bin/qmail-newu").write_text("#!/bin/sh\nexit 111\n")
    with pytest.raises(PublishError, match="qmail-newu"):
        publish.publish(places, STORE, b"./Maildir/\n")


def test_missing_qmail_newu_is_an_error(places: Layout) -> None:
    os.unlink(places.qmail + "/bin/qmail-newu")
    with pytest.raises(PublishError, match="qmail-newu: no such program"):
        publish.publish(places, STORE, b"./Maildir/\n")


def test_queue_manager_reads_anew_only_when_the_domains_changed(
    places: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(places.control, "me").write_text("mail.example.org\n")
    os.makedirs(places.services + "/queue/supervise")
    os.mkfifo(places.services + "/queue/supervise/control")
    called = []
    run = subprocess.run

    def record(argv: list[str], **more: object) -> object:
        called.append(argv[0])
        return None if argv[0] == "s6-svc" else run(argv, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", record)
    publish.publish(places, STORE, b"./Maildir/\n")
    publish.publish(places, STORE, b"./Maildir/\n")
    publish.publish(places, STORE.with_domains("new.example"), b"./Maildir/\n")
    assert called == ["qmail-newu", "s6-svc", "qmail-newu", "qmail-newu", "s6-svc"]
