"""The protocol between qmail-send and the spawners: any split, any content."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.send import spawnprotocol as sp

FIELD = st.binary(max_size=40).map(lambda field: field.replace(b"\0", b"."))
REQUESTS = st.lists(
    st.builds(sp.Request, st.integers(0, 255), FIELD, FIELD, FIELD), min_size=1, max_size=4
)
REPORTS = st.lists(st.builds(sp.Report, st.integers(0, 255), FIELD), min_size=1, max_size=4)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(REQUESTS, st.lists(st.integers(0, 400)))
def test_requests_survive_any_split(requests: list[sp.Request], cuts: list[int]) -> None:
    reader = sp.RequestReader()
    data = b"".join(map(sp.encode_request, requests))
    assert [r for piece in pieces(data, cuts) for r in reader.feed(piece)] == requests


@given(REPORTS, st.lists(st.integers(0, 400)))
def test_reports_survive_any_split(reports: list[sp.Report], cuts: list[int]) -> None:
    reader = sp.ReportReader()
    data = sp.encode_limit(120) + b"".join(map(sp.encode_report, reports))
    assert [r for piece in pieces(data, cuts) for r in reader.feed(piece)] == reports
    assert reader.limit == 120


def test_the_wire_form_is_netqmails() -> None:
    request = sp.Request(0, b"13/457", b"joe@example.org", b"ann@example.net")
    assert sp.encode_request(request) == b"\x0013/457\0joe@example.org\0ann@example.net\0"
    assert sp.encode_report(sp.Report(3, b"Kdid 1+0+0\n")) == b"\x03Kdid 1+0+0\n\0"


def test_delivery_number_zero_is_no_end_of_report() -> None:
    reader = sp.ReportReader()
    assert reader.feed(b"\x0a\0") == []
    assert reader.feed(b"K\0\0Zno\n\0") == [sp.Report(0, b"K"), sp.Report(0, b"Zno\n")]


def test_an_empty_report_is_mangled_and_does_not_swallow_the_next() -> None:
    reader = sp.ReportReader()
    reports = reader.feed(b"\x0a\x05\0\x06Kok\n\0")
    assert [r.delivery for r in reports] == [5, 6]
    assert [r.verdict for r in reports] == [sp.Verdict.MANGLED, sp.Verdict.SUCCESS]


def test_a_wild_spawner_costs_no_memory() -> None:
    reader = sp.ReportReader()
    reader.feed(b"\x0a\x01D")
    for _ in range(50):
        assert reader.feed(b"x" * 65536) == []
    assert len(reader._buffer) <= sp.REPORT_LIMIT
    (report,) = reader.feed(b"\0")
    assert (report.delivery, report.verdict) == (1, sp.Verdict.FAILURE)
    assert len(report.text) < sp.REPORT_LIMIT


def test_a_request_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        sp.RequestReader().feed(b"\x01" + b"1" * sp.REQUEST_LIMIT)


def test_a_nul_in_a_field_cannot_make_a_second_request() -> None:
    data = sp.encode_request(sp.Request(1, b"1/1", b"a\0b@c\0\x02", b"r@h\0x"))
    assert sp.RequestReader().feed(data) == [sp.Request(1, b"1/1", b"a", b"r@h")]


def test_long_local_reports_are_cut_and_say_so() -> None:
    data = sp.encode_report(sp.Report(1, b"D" + b"x" * 9000), sp.LOCAL_REPORT_LIMIT)
    assert len(data) < sp.LOCAL_REPORT_LIMIT + 2
    assert data.endswith(b"x\nError report too long, sorry.\n\0")


@pytest.mark.parametrize(
    ("message", "recipient", "text"),
    [
        (b"0/457", b"a@b", None),
        (b"457", b"@", None),
        (b"", b"a@b", sp.MESSAGE_TOO_SHORT),
        (b"/etc/passwd", b"a@b", sp.MESSAGE_NOT_NUMERIC),
        (b"/457", b"a@b", sp.MESSAGE_NOT_NUMERIC),
        (b"1/../2", b"a@b", sp.MESSAGE_NOT_NUMERIC),
        (b"4x7", b"a@b", sp.MESSAGE_NOT_NUMERIC),
        (b"1" * 101, b"a@b", sp.MESSAGE_TOO_LONG),
        (b"1/1", b"root", sp.NO_HOST),
    ],
)
def test_unsound_requests_are_refused_before_any_file(
    message: bytes, recipient: bytes, text: bytes | None
) -> None:
    assert sp.refusal(sp.Request(1, message, b"", recipient)) == text
