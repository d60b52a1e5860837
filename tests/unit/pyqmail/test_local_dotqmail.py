"""The language of .qmail files."""

import pytest

from pyqmail.local import dotqmail
from pyqmail.local.dotqmail import Candidate, Instruction, Kind
from pyqmail.local.failure import Failure


def follow(content: bytes, forward_only: bool = False) -> list[Instruction]:
    return list(dotqmail.instructions(content, forward_only=forward_only))


def test_each_kind_of_line_is_recognised() -> None:
    content = (
        b"# a comment\n|preline vacation joe\n&me@example.net\nyou@example.net\n"
        b"./Mailbox\n/var/mail/joe\n./Maildir/\n"
    )
    assert follow(content) == [
        Instruction(Kind.PROGRAM, b"preline vacation joe"),
        Instruction(Kind.FORWARD, b"me@example.net"),
        Instruction(Kind.FORWARD, b"you@example.net"),
        Instruction(Kind.MBOX, b"./Mailbox"),
        Instruction(Kind.MBOX, b"/var/mail/joe"),
        Instruction(Kind.MAILDIR, b"./Maildir/"),
    ]


def test_blanks_at_the_end_of_a_line_and_later_blank_lines_do_not_matter() -> None:
    assert follow(b"./Maildir/ \t\n\n  \n#\n&a@b\t") == [
        Instruction(Kind.MAILDIR, b"./Maildir/"),
        Instruction(Kind.FORWARD, b"a@b"),
    ]


@pytest.mark.parametrize("content", [b"\n", b" \t\n./Maildir/\n", b"\n&a@b\n", b""])
def test_a_blank_first_line_defers(content: bytes) -> None:
    with pytest.raises(Failure) as failure:
        follow(content)
    assert failure.value.status == 111
    assert failure.value.text == b"Uh-oh: first line of .qmail file is blank. (#4.2.1)"


@pytest.mark.parametrize(
    ("line", "what"), [(b"./Maildir/", b"file"), (b"./Mailbox", b"file"), (b"|true", b"prog")]
)
def test_x_bit_allows_only_forwards(line: bytes, what: bytes) -> None:
    with pytest.raises(Failure) as failure:
        follow(b"&a@b\n" + line + b"\n", forward_only=True)
    assert failure.value.status == 111
    assert failure.value.text == (
        b"Uh-oh: .qmail has " + what + b" delivery but has x bit set. (#4.7.0)"
    )


def test_forwards_are_allowed_with_x_bit() -> None:
    assert follow(b"# list\n&a@b\nc@d\n", forward_only=True) == [
        Instruction(Kind.FORWARD, b"a@b"),
        Instruction(Kind.FORWARD, b"c@d"),
    ]


def test_plus_list_forbids_what_follows_but_not_what_was_before() -> None:
    found = dotqmail.instructions(b"./Maildir/\n+list\n&a@b\n|true\n", forward_only=False)
    assert next(found).kind is Kind.MAILDIR
    assert next(found).kind is Kind.FORWARD
    with pytest.raises(Failure):
        next(found)


def test_other_plus_lines_are_reserved_and_ignored() -> None:
    assert follow(b"+future\n./Maildir/\n") == [Instruction(Kind.MAILDIR, b"./Maildir/")]


# The table in the comments of dot-qmail's description: dash, ext, the names tried.
@pytest.mark.parametrize(
    ("dash", "ext", "names"),
    [
        (b"", b"", [b".qmail", b".qmaildefault"]),
        (b"-", b"", [b".qmail-", b".qmail-default"]),
        (b"-", b"a", [b".qmail-a", b".qmail-default"]),
        (b"-", b"a-", [b".qmail-a-", b".qmail-a-default", b".qmail-default"]),
        (b"-", b"a-b", [b".qmail-a-b", b".qmail-a-default", b".qmail-default"]),
        (
            b"-",
            b"a-b-c",
            [b".qmail-a-b-c", b".qmail-a-b-default", b".qmail-a-default", b".qmail-default"],
        ),
        (b"-", b"Joe.Shmoe", [b".qmail-joe:shmoe", b".qmail-default"]),
    ],
)
def test_names_are_tried_from_the_most_specific(
    dash: bytes, ext: bytes, names: list[bytes]
) -> None:
    assert [candidate.name for candidate in dotqmail.candidates(dash, ext)] == names


def test_default_is_what_the_word_default_stands_for_in_its_own_case() -> None:
    assert list(dotqmail.candidates(b"-", b"List-Sub.Me")) == [
        Candidate(b".qmail-list-sub:me", None),
        Candidate(b".qmail-list-default", b"Sub.Me"),
        Candidate(b".qmail-default", b"List-Sub.Me"),
    ]


def test_an_extension_that_ends_in_default_sets_default_too() -> None:
    first = next(dotqmail.candidates(b"-", b"list-Default"))
    assert first == Candidate(b".qmail-list-default", b"Default")


def test_an_extension_cannot_climb_out_of_the_home() -> None:
    for candidate in dotqmail.candidates(b"-", b"/../../etc/passwd"):
        assert b".." not in candidate.name
