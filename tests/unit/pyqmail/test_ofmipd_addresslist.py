"""Address lists: what is an address, and that nothing else changes."""

import email.utils
from unittest import mock

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyqmail.header import addresslist
from pyqmail.header.addresslist import (
    ListError,
    Mailbox,
    every_address,
    mailboxes,
    quote_phrase,
    rewrite,
)
from pyqmail.header.rewriting import Rewriter, parse, standard

REWRITER = Rewriter(parse(standard(b"default", b"heaven.af.mil", b"plus.example")))


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b" a@b", [b"a@b"]),
        (b" a@b, c@d (Somebody), A Person <e@f>,\n   random group: g@h, i@j;, k@l\n",
         [b"a@b", b"c@d", b"e@f", b"g@h", b"i@j", b"k@l"]),
        (b' God@heaven.af.mil,\n\t<@brl.mil:"a\\"quote"@heaven.af.mil>,\n'
         b'\t  "The Almighty".One@heaven.af.mil\n',
         [b"God@heaven.af.mil", b'a"quote@heaven.af.mil', b"The Almighty.One@heaven.af.mil"]),
        (b' < "God"@heaven .af.mil>,\n "a\\"quote" (Who?) @ heaven . af.  mil\n'
         b' , God<"The Almighty.One"@heaven.af.mil>\n',
         [b"God@heaven.af.mil", b'a"quote@heaven.af.mil', b"The Almighty.One@heaven.af.mil"]),
        (b" djb@[128.32.183.163]", [b"djb@[128.32.183.163]"]),
        (b" djb fred", [b"djb", b"fred"]),
        (b" a@b c@d", [b"a@b", b"c@d"]),
        (b" <a@b> c@d", [b"a@b", b"c@d"]),
        (b" A <a@b> C <c@d>", [b"a@b", b"c@d"]),
        (b" recipient list not shown: ;", []),
        (b" ", []),
        (b"", []),
        (b" ,,", []),
        (b" <>", [b""]),
        (b" a@b@c", [b"a@b@c"]),
        (b" a@", [b"a@"]),
        (b" John Q. Public <a@b>", [b"a@b"]),
        (b" joe@x <a@b>", [b"a@b"]),
        (b' "a, b" <a@b>', [b"a@b"]),
        (b" (a (nested \\) comment), c@d) a@b", [b"a@b"]),
        (b" a\\@b@c", [b"a@b@c"]),
        (b" =?utf-8?q?J=C3=BCrgen?= <a@b>", [b"a@b"]),
        (b" J\xc3\xbcrgen <a@b>", [b"a@b"]),
        (b" \xc3\xa4@b", [b"\xc3\xa4@b"]),
        (b" a@b;", [b"a@b"]),
        (b" one: a@b; two: c@d;", [b"a@b", b"c@d"]),
        (b" Undisclosed recipients:;", []),
    ],
)  # fmt: skip
def test_addresses(value: bytes, addresses: list[bytes]) -> None:
    assert [one.address for one in mailboxes(value)] == addresses


@pytest.mark.parametrize(
    "value",
    [b' "open <a@b>', b" (open a@b", b" <a@b", b" a@b>", b" <a<b>@c>", b" a@[b", b" a) b",
     b" a\x01@b", b" a\x00", b" a\\"],
)  # fmt: skip
def test_no_address_list(value: bytes) -> None:
    with pytest.raises(ListError):
        mailboxes(value)
    assert rewrite(value, REWRITER.host) == value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b" joe", b" joe@default.heaven.af.mil"),
        (b" joe\n", b" joe@default.heaven.af.mil\n"),
        (b" djb fred", b" djb@default.heaven.af.mil, fred@default.heaven.af.mil"),
        (b" djb@silverton", b" djb@silverton.heaven.af.mil"),
        (b" eric@mammoth.cs+ (Eric)", b" eric@mammoth.cs.plus.example (Eric)"),
        (b" a@b.c.", b" a@b.c"),
        (b" a@[127.0.0.1]", b" a@[127.0.0.1]"),
        (b" Joe <joe>, x@y.z", b" Joe <joe@default.heaven.af.mil>, x@y.z"),
        (b" <joe@here (this one) >", b" <joe@here.heaven.af.mil (this one) >"),
        (b" joe@the (big) . host.", b" joe@the.host (big)"),
        (b' joe@"a b"', b' joe@"a b".heaven.af.mil'),
        (b' list: joe, "a b"@c;', b' list: joe@default.heaven.af.mil, "a b"@c.heaven.af.mil;'),
        (b" <>", b" <>"),
        (b" recipient list not shown: ;", b" recipient list not shown: ;"),
        (b" A <a@b.c> C <c@d>", b" A <a@b.c>, C <c@d.heaven.af.mil>"),
        (b" \xe9 <joe>", b" \xe9 <joe@default.heaven.af.mil>"),
    ],
)  # fmt: skip
def test_rewrite(before: bytes, after: bytes) -> None:
    assert rewrite(before, REWRITER.host) == after


PIECES = st.lists(
    st.sampled_from(
        [b"joe", b"@", b".", b" ", b",", b";", b":", b"<", b">", b'"', b"(", b")", b"[", b"]",
         b"\\", b"\n ", b"a@b.c", b'"q s"', b"(c)", b"\xe9", b"\x01"]
    ),
    max_size=14,
)  # fmt: skip


@given(PIECES)
def test_whole_names_leave_everything_as_it_was(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    assert rewrite(value, lambda host: host).replace(b",", b"") == value.replace(b",", b"")


@given(PIECES)
def test_rewriting_is_done_after_one_time(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    # A dot at the end says that a name is whole, and is taken off: of two, one each time.
    assume(value.count(b".") < 2)
    once = rewrite(value, REWRITER.host)
    assert rewrite(once, REWRITER.host) == once


BOX = st.from_regex(r"[a-z0-9+_-]{1,8}(\.[a-z0-9]{1,4})?", fullmatch=True)
HOST = st.from_regex(r"[a-z]{1,6}(\.[a-z]{2,5}){1,2}", fullmatch=True)
NAME = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=12)


@given(st.lists(st.tuples(NAME, BOX, HOST), min_size=1, max_size=5))
def test_we_read_what_the_email_package_reads(people: list[tuple[str, str, str]]) -> None:
    pairs = [(name.strip(), f"{box}@{host}") for name, box, host in people]
    value = ", ".join(email.utils.formataddr(pair) for pair in pairs)
    theirs = [address for _, address in email.utils.getaddresses([value])]
    ours = [one.address.decode() for one in mailboxes(value.encode())]
    assert ours == theirs == [address for _, address in pairs]


def test_phrase_cannot_break_out() -> None:
    assert quote_phrase(b'a"\\\nBcc: x') == b'"a\\"\\\\ Bcc: x"'


@given(PIECES)
def test_the_short_way_reads_the_same(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    short = addresslist._common(value)
    assert short is None or short == read_by_tokens(value)


@given(st.lists(st.tuples(NAME, BOX, HOST), min_size=1, max_size=3))
def test_the_short_way_reads_common_addresses_the_same(
    people: list[tuple[str, str, str]],
) -> None:
    value = ", ".join(
        email.utils.formataddr((name.strip(), f"{box}@{host}")) for name, box, host in people
    ).encode()
    short = addresslist._common(value)
    assert short is None or short == read_by_tokens(value)


def test_the_short_way_is_taken() -> None:
    value = b' Alice M. Example <alice@example.org>,\n "Bob, too" <bob@x.example>, joe@b-c.d\n'
    assert addresslist._common(value) is not None


def read_by_tokens(value: bytes) -> list[Mailbox]:
    with mock.patch.object(addresslist, "_common", lambda value: None):
        return mailboxes(value)


@given(PIECES)
def test_every_address_is_among_those_that_somebody_may_find(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    try:
        found = every_address(value)
    except ListError:
        return
    assert {one.address for one in mailboxes(value)} <= set(found)
