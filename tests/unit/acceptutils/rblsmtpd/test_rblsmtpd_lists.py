"""Lists: how they are named, what they are asked, what an answer means, who decides."""

import pytest

from acceptutils.rblsmtpd import lists
from acceptutils.rblsmtpd.lists import Codes, Finding, Found, Question, Refusal, Source

LISTED = Finding(Found.LISTED, "listed")
UNLISTED = Finding(Found.UNLISTED)
FAILED = Finding(Found.FAILED, "no answer")
IPV6 = "2001:db8:1:2:3:4:567:89ab"


# Names ---------------------------------------------------------------------------------------


def test_a_list_is_a_zone_perhaps_codes_perhaps_a_text() -> None:
    assert lists.parse("bl.example") == Source("bl.example")
    assert lists.parse("bl.example.", allows=True) == Source("bl.example", allows=True)
    assert lists.parse("bl.example:see http://x/?%IP%").text == "see http://x/?%IP%"
    both = lists.parse("bl.example=127.0.0.[2..4;10]:go away")
    assert (both.zone, both.text) == ("bl.example", "go away")
    assert both.codes is not None
    assert [n for n in range(256) if f"127.0.0.{n}" in both.codes] == [2, 3, 4, 10]


@pytest.mark.parametrize("text", ["", ".", "a..b", "a b", "-x", "a/b", "bl.example=", "=127.0.0.2"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not "):
        lists.parse(text)


@pytest.mark.parametrize(
    "text",
    ["127.0.0", "127.0.0.2.3", "127.0.0.256", "127.0.0.[4..2]", "127.0.0.[]", "127.0.0.[2",
     "127.0.0.[2.3]", "127.0.0.[2;;3]", "127.0.0.x", " 127.0.0.2"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Codes(text)


def test_every_octet_may_be_a_choice() -> None:
    codes = Codes("127.0.[0..255].[1..3]")
    assert "127.0.7.2" in codes
    assert "127.0.7.4" not in codes
    assert "127.1.7.2" not in codes


def test_an_ipv4_address_is_asked_for_backwards() -> None:
    assert lists.questions(Source("bl.example"), "192.0.2.99") == [
        Question("99.2.0.192.bl.example", "A"),
        Question("99.2.0.192.bl.example", "TXT"),
    ]


def test_an_ipv6_address_is_asked_for_by_nibbles() -> None:
    (question, _) = lists.questions(Source("bl.example"), IPV6)
    nibbles = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"  # RFC 5782, 2.4
    assert question == Question(f"{nibbles}.bl.example", "A")


@pytest.mark.parametrize("source", [Source("x", allows=True), Source("x", text="ours")])
def test_no_text_is_asked_for_that_is_not_needed(source: Source) -> None:
    assert [question.kind for question in lists.questions(source, "192.0.2.1")] == ["A"]


@pytest.mark.parametrize("address", ["", "192.0.2", "fe80::1%eth0", "host.example"])
def test_what_is_no_address_is_not_looked_up(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        lists.reverse(address)


# Answers -------------------------------------------------------------------------------------


def judged(source: Source, codes: list[str] | None, texts: list[str] | None) -> Finding:
    return lists.judge(source, "192.0.2.1", codes, texts)


def test_a_record_is_a_listing_with_the_lists_own_words_or_ours() -> None:
    source = Source("bl.example")
    own = Finding(Found.LISTED, "see x?192.0.2.1")
    assert judged(source, ["127.0.0.2"], ["see x?%IP%", "more"]) == own
    said = Finding(Found.LISTED, "192.0.2.1 is listed in bl.example")
    assert judged(source, ["127.0.0.2"], []) == said
    assert judged(source, ["127.0.0.2"], None) == said
    ours = Source("bl.example", text="away, %IP%")
    assert judged(ours, ["127.0.0.2"], None) == Finding(Found.LISTED, "away, 192.0.2.1")


def test_no_record_is_no_listing() -> None:
    assert judged(Source("x"), [], []) == UNLISTED
    assert judged(Source("x"), [], None) == UNLISTED


def test_a_text_alone_is_a_listing_if_the_list_is_believed_in_all() -> None:
    assert judged(Source("x"), [], ["why"]) == Finding(Found.LISTED, "why")
    assert judged(Source("x", codes=Codes("127.0.0.2")), [], ["why"]) == UNLISTED


def test_no_answer_is_a_failure_whatever_the_text_says() -> None:
    assert judged(Source("x"), None, ["why"]).found is Found.FAILED


@pytest.mark.parametrize("code", ["127.255.255.254", "127.255.255.252", "198.51.100.7", "0.0.0.0"])
@pytest.mark.parametrize("allows", [False, True])
def test_a_list_that_says_it_cannot_answer_lists_nobody(code: str, allows: bool) -> None:
    finding = judged(Source("x", allows), [code], ["Error: open resolver"])
    assert finding == Finding(Found.FAILED, f"answers {code}")


def test_only_the_codes_that_were_asked_for_count() -> None:
    source = Source("x", codes=Codes("127.0.0.[2..3]"))
    assert judged(source, ["127.0.0.4"], ["why"]) == UNLISTED
    assert judged(source, ["127.0.0.10", "127.0.0.3"], ["why"]).found is Found.LISTED


# Decisions -----------------------------------------------------------------------------------

BLOCK, ALLOW = Source("block"), Source("allow", allows=True)
NOW = Refusal(451, "listed")
FOR_GOOD = Refusal(553, "listed")
TROUBLE = Refusal(451, "temporary RBL lookup error")


@pytest.mark.parametrize(
    ("findings", "closed", "wanted"),
    [
        # allow, block
        ((UNLISTED, UNLISTED), False, None),
        ((UNLISTED, LISTED), False, FOR_GOOD),
        ((LISTED, LISTED), False, None),
        ((LISTED, None), False, None),
        ((FAILED, LISTED), False, None),
        ((FAILED, LISTED), True, NOW),
        ((FAILED, UNLISTED), True, None),
        ((UNLISTED, FAILED), False, None),
        ((UNLISTED, FAILED), True, TROUBLE),
    ],
)
def test_who_is_let_in(
    findings: tuple[Finding | None, ...], closed: bool, wanted: Refusal | None
) -> None:
    got = lists.decide((ALLOW, BLOCK), findings, permanent=True, closed=closed)
    assert got == wanted


def test_the_first_list_that_lists_counts() -> None:
    assert lists.decide((BLOCK, ALLOW), (LISTED, LISTED), permanent=False, closed=False) == NOW
    assert lists.decide((BLOCK, ALLOW), (LISTED, None), permanent=False, closed=False) == NOW


def test_what_depends_on_an_answer_to_come_waits_for_it() -> None:
    with pytest.raises(lists.Undecided):
        lists.decide((ALLOW, BLOCK), (None, LISTED), permanent=False, closed=False)
