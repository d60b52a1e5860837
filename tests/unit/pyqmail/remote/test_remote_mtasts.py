"""MTA-STS: records, policies, what is remembered of them, and for how long."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.remote import mtasts, mtastscache
from pyqmail.remote.mtasts import Entry, Mode, Policy, PolicyError
from pyqmail.remote.mtastscache import FetchError

TEXT = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.net\r\nmax_age: 86400\r\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], b"20160831085700Z"),
        ([b"v=STSv1;id=a"], b"a"),
        ([b"v=STSv1 ; id = a ;x=y"], b"a"),
        ([b"v=spf1 -all", b"v=STSv1; id=a;"], b"a"),
        ([], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv2; id=a"], None),
        ([b"v=STSv10; id=a"], None),
        ([b" v=STSv1; id=a"], None),
        ([b"v=STSv1; id=a", b"v=STSv1; id=b"], None),
    ],
)
def test_records(texts: list[bytes], found: bytes | None) -> None:
    assert mtasts.parse_record(texts) == found


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (TEXT, Policy(Mode.ENFORCE, 86400, (b"mx.example.net",))),
        (TEXT.replace(b"\r", b""), Policy(Mode.ENFORCE, 86400, (b"mx.example.net",))),
        (
            b"version: STSv1\nmode: testing\nmx: *.Example.NET.\nmx: b\nmax_age: 9999999999\n"
            b"mode: none\nfuture: x\n\n",
            Policy(Mode.TESTING, 31557600, (b"*.example.net", b"b")),
        ),
        (b"mode:none\nversion:STSv1\nmax_age:0", Policy(Mode.NONE, 0)),
    ],
)
def test_policies(text: bytes, policy: Policy) -> None:
    assert mtasts.parse_policy(text) == policy


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"STSv1", b"STSv2"),
        (b"version: STSv1\r\n", b""),
        (b"enforce", b"Enforce"),
        (b"mode: enforce\r\n", b""),
        (b"mx: mx.example.net\r\n", b""),
        (b"mx: mx.example.net", b"mx:"),
        (b"max_age: 86400\r\n", b""),
        (b"86400", b"-1"),
        (b"86400", b"86400s"),
        (b"86400", b"1" * 11),
        (b"mode: enforce", b"<html>"),
    ],
)
def test_what_is_no_policy(before: bytes, after: bytes) -> None:
    with pytest.raises(PolicyError):
        mtasts.parse_policy(TEXT.replace(before, after))


@given(st.binary(max_size=200))
def test_no_text_makes_it_stumble(text: bytes) -> None:
    try:
        mtasts.parse_policy(text)
    except PolicyError:
        pass
    mtasts.parse_record([text])
    mtasts.decode(text)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"mx.example.net", True),
        (b"MX.example.net.", True),
        (b"a.mail.example.net", True),
        (b"a.b.mail.example.net", False),
        (b"mail.example.net", False),
        (b"xmx.example.net", False),
        (b"mx.example.net.evil.example", False),
        (b"*.mail.example.net", True),
        (b"", False),
    ],
)
def test_exchangers_that_a_policy_lists(host: bytes, allowed: bool) -> None:
    policy = Policy(Mode.ENFORCE, 1, (b"mx.example.net", b"*.mail.example.net"))
    assert policy.allows(host) is allowed


# --- what is remembered --------------------------------------------------------------

NOW = 1_000_000
FRESH = Entry(b"a", NOW - 10, 0, TEXT)


@pytest.mark.parametrize(
    ("entry", "live", "due"),
    [
        (Entry(), None, False),
        (Entry(), b"a", True),
        (FRESH, b"a", False),
        (FRESH, None, False),
        (FRESH, b"b", True),
        (FRESH._replace(fetched=NOW - 43_199), b"a", False),
        (FRESH._replace(fetched=NOW - 43_200), b"a", True),
        (FRESH._replace(fetched=NOW - 86_400), b"a", True),
        (FRESH._replace(fetched=NOW - 86_400), None, False),
        (FRESH._replace(failed=NOW - 299), b"b", False),
        (FRESH._replace(failed=NOW - 300), b"b", True),
        (Entry(failed=NOW - 1), b"a", False),
        (FRESH._replace(fetched=NOW + 1), b"a", True),  # the clock was wrong
        (FRESH._replace(failed=NOW + 1), b"b", True),
    ],
)
def test_when_a_policy_is_fetched(entry: Entry, live: bytes | None, due: bool) -> None:
    assert mtasts.is_due(entry, live, NOW) is due


def test_a_policy_counts_until_it_is_too_old() -> None:
    entry = Entry(b"a", NOW, 0, TEXT)
    assert entry.policy(NOW - 1) is None
    assert entry.policy(NOW) is not None
    assert entry.policy(NOW + 86_399) is not None
    assert entry.policy(NOW + 86_400) is None
    assert entry.expires() == NOW + 86_400
    assert Entry(failed=NOW).expires() == NOW + mtasts.RETRY_SECONDS


def test_entries_survive_their_file() -> None:
    for entry in (Entry(), FRESH, Entry(b"", 0, 5, b""), Entry(b"a", 1, 2, b"\n\nx: y\n\n")):
        assert mtasts.decode(mtasts.encode(entry)) == entry


class Host:
    """A policy host that counts how often it is asked."""

    def __init__(self, text: bytes | None) -> None:
        self.text = text
        self.asked = 0

    def fetch(self) -> bytes:
        self.asked += 1
        if self.text is None:
            raise FetchError
        return self.text


Find = Callable[[bytes | None], Policy | None]


@pytest.fixture
def host() -> Host:
    return Host(TEXT)


@pytest.fixture
def find(tmp_path: Path, host: Host) -> Find:
    return lambda live: mtastscache.find(str(tmp_path), b"example.net", live, host.fetch)


def test_a_policy_is_fetched_once(find: Find, host: Host, tmp_path: Path) -> None:
    first = find(b"a")
    assert first is not None and first.mode is Mode.ENFORCE
    assert find(b"a") == first
    assert host.asked == 1
    assert b"mode: enforce" in (tmp_path / "example.net").read_bytes()
    assert (tmp_path / "example.net").stat().st_mode & 0o777 == 0o600


def test_a_new_id_means_a_new_policy(find: Find, host: Host) -> None:
    find(b"a")
    host.text = TEXT.replace(b"enforce", b"testing")
    found = find(b"b")
    assert found is not None and found.mode is Mode.TESTING
    assert host.asked == 2


def test_a_domain_without_a_record_costs_no_fetch(find: Find, host: Host, tmp_path: Path) -> None:
    assert find(None) is None
    assert host.asked == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", [None, b"<html>not found</html>"])
def test_who_suppresses_the_policy_does_not_switch_it_off(
    find: Find, host: Host, text: bytes | None
) -> None:
    find(b"a")
    host.text = text
    for live in (b"b", None):
        found = find(live)
        assert found is not None and found.mode is Mode.ENFORCE


def test_a_failure_is_not_repeated_by_every_message(find: Find, host: Host) -> None:
    host.text = None
    assert find(b"a") is find(b"a") is None
    assert host.asked == 1


def test_a_directory_that_is_not_there_costs_only_fetches(tmp_path: Path, host: Host) -> None:
    gone = str(tmp_path / "gone")
    for _ in range(2):
        found = mtastscache.find(gone, b"example.net", b"a", host.fetch)
        assert found is not None
    assert host.asked == 2


@pytest.mark.parametrize("name", [b"../x", b".lock", b"a/b", b"", b"-x", b"a" * 254, b"A", b"\xff"])
def test_no_domain_becomes_another_files_name(tmp_path: Path, host: Host, name: bytes) -> None:
    assert mtastscache.find(str(tmp_path), name, b"a", host.fetch) is None
    assert host.asked == 0
    assert os.listdir(tmp_path) == []


def test_a_damaged_file_is_no_policy(find: Find, host: Host, tmp_path: Path) -> None:
    (tmp_path / "example.net").write_bytes(b"fetched: x\n\n" + TEXT)
    assert find(None) is None
    assert find(b"a") is not None
    assert host.asked == 1


def test_what_is_of_no_use_is_removed_at_the_start(find: Find, tmp_path: Path) -> None:
    find(b"a")
    old = Entry(b"a", int(time.time()) - 90_000, 0, TEXT)
    mtastscache.write(str(tmp_path / "old.example"), old)
    (tmp_path / ".4242").write_bytes(b"half")
    os.utime(tmp_path / ".4242", (1, 1))
    mtastscache.clean(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".lock", "example.net"]
