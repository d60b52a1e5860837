"""What is fuzzed: every reader of bytes that somebody else chose.

A target takes any bytes. It may refuse them in the way its reader documents; anything
else that it raises, and every broken promise that it checks, is a finding.
"""

import datetime
from collections.abc import Callable

from acceptutils import ucspitls
from acceptutils.authup import credentials, lines, record
from acceptutils.checkpassword import store
from acceptutils.fixsmtpio import glob, message, reply, request, rules
from acceptutils.server import proxy
from appliance import metrics_count, metrics_http, metrics_table
from pyqmail.queue import envelope
from pyqmail.remote import dane, danechain, https, mtasts, wire
from pyqmail.remote.dane import Tlsa
from pyqmail.remote.reply import ReplyError, ReplyReader
from pyqmail.smtp import address
from pyqmail.smtp.data import Decoder, StrayLineEnd


def pieces(data: bytes) -> list[bytes]:
    """Return data in pieces of a size that its first byte says."""
    size = data[0] % 7 + 1 if data else 1
    return [data[i : i + size] for i in range(1, len(data), size)]


def requests(data: bytes) -> None:
    """fixsmtpio's reader of the client, in commands and in a message."""
    reader = request.Reader(False)
    for piece in pieces(data):
        reader.feed(piece)
        while (taken := reader.take()) is not None:
            if taken.kind is request.Kind.LINE:
                assert b"\n" not in taken.data and b"\0" not in taken.data
                if request.verb_of(taken.data) == b"data":
                    reader.start_message()
            elif taken.kind not in (request.Kind.PART, request.Kind.END):
                return


def replies(data: bytes) -> None:
    """fixsmtpio's reader of the server: what comes out is well formed."""
    reader = reply.Reader()
    try:
        for piece in pieces(data):
            for found in reader.feed(piece):
                assert reply.is_last(found[-1])
                assert not any(map(reply.is_last, found[:-1]))
    except reply.MalformedReply:
        pass


def messages(data: bytes) -> None:
    """The end of data: the same with any split, and the same in proxy and server."""
    body = data[1:]
    whole = message.Scanner(False).feed(body)
    split = message.Scanner(False)
    passed = b""
    for piece in pieces(data):
        part, verdict, _ = split.feed(piece)
        passed += part
        if verdict is not message.Verdict.MORE:
            break
    else:
        return
    if verdict is message.Verdict.END:
        assert whole[1] is verdict and whole[0] == passed
        decoder = Decoder()
        decoder.feed(passed)
        assert decoder.rest == b"", "the server sees another end than the proxy"


def decoded(data: bytes) -> None:
    """qmail-smtpd's decoder: no stray line end in, no CR out."""
    decoder = Decoder()
    try:
        for piece in pieces(data):
            assert b"\r" not in decoder.feed(piece)
            if decoder.rest is not None:
                break
    except StrayLineEnd:
        pass


def rule_files(data: bytes) -> None:
    """fixsmtpio's rule parser: every refusal has a place."""
    try:
        rules.parse(data).select({})
    except rules.RuleError as error:
        assert error.line >= 1 and error.column >= 1


def globs(data: bytes) -> None:
    """fnmatch(3): ends, whatever the pattern."""
    pattern, _, text = data.partition(b"\n")
    glob.Glob(pattern).match(text)


def tls_variables(data: bytes) -> None:
    """The UCSPI-TLS blob."""
    try:
        ucspitls.parse_blob(data)
    except ucspitls.HandshakeError:
        pass


def proxy_headers(data: bytes) -> None:
    """The PROXY protocol, both versions: never longer than what was received."""
    try:
        header = proxy.parse(data)
    except proxy.ProxyError:
        return
    assert header is None or 0 < header.length <= len(data)


def base64(data: bytes) -> None:
    """AUTH's base64, strict: what decodes has no NUL in a word."""
    for decode in (credentials.decode_word, credentials.decode_plain):
        try:
            decode(data)
        except credentials.Malformed:
            pass


def login_lines(data: bytes) -> None:
    """authup's line reader: bounded lines without NUL."""
    reader = lines.LineReader()
    try:
        for piece in pieces(data):
            reader.feed(piece)
            while (line := reader.take(lambda _: 64)) is not None:
                assert len(line) <= 64 and b"\0" not in line
    except lines.LineTooLong:
        pass


def records(data: bytes) -> None:
    """The broker's reader of the parser's records: nothing but TLS variables pass."""
    try:
        asked = record.unpack(data.ljust(record.REQUEST_SIZE, b"\0")[: record.REQUEST_SIZE])
    except record.BadRecord:
        return
    assert all(name.startswith("SSL_") for name in asked.variables)


def accounts(data: bytes) -> None:
    """The account store: no account of root's, whatever the file says."""
    try:
        found = store.parse(data)
    except store.StoreError:
        return
    assert all(account.uid >= 1000 for account in found.by_name.values())


def paths(data: bytes) -> None:
    """The argument of MAIL and RCPT: no control character gets through."""
    found = address.parse_path(data)
    if found is not None:
        assert b"\n" not in found.address and b"\0" not in found.address


def envelopes(data: bytes) -> None:
    """The envelope on qmail-queue's descriptor 1: what is kept can be read back."""
    reader = envelope.EnvelopeReader()
    kept = b""
    try:
        for piece in pieces(data):
            kept += reader.feed(piece)
    except envelope.EnvelopeError:
        return
    if reader.complete:
        envelope.decode_todo(kept)


def answers_to_us(data: bytes) -> None:
    """qmail-remote's reader of the server: what it takes into a report is one line per line."""
    reader = ReplyReader()
    try:
        for piece in pieces(data):
            reader.feed(piece)
            while (found := reader.take()) is not None:
                assert 200 <= found.code <= 599
                text = found.text
                assert text.count(b"\n") <= len(found.lines)
                assert not any(c < 32 and c != 10 for c in text)
    except ReplyError:
        pass


def sent(data: bytes) -> None:
    """What qmail-remote sends of a message: no CR or LF alone, and no end within."""
    whole = b"".join(wire.encode([data[1:]]))
    assert b"".join(wire.encode(pieces(data))) == whole
    assert whole.count(b"\r") == whole.count(b"\n") == whole.count(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + whole
    assert not whole or whole.endswith(b"\r\n")


def certificates(data: bytes) -> None:
    """A server's certificates, before a TLSA record: nothing fits by chance."""
    records = (Tlsa(2, 1, 1, bytes(32)), Tlsa(2, 0, 0, data))
    assert not dane.matches(records[0], data)
    try:
        dane.public_key(data)
    except ValueError:
        pass
    try:
        danechain.check([data, data], records, datetime.datetime.now(datetime.UTC))
    except danechain.ChainError:
        pass


def sts(data: bytes) -> None:
    """MTA-STS: the record, the policy, and the file that remembers it."""
    mtasts.parse_record([data])
    entry = mtasts.decode(data)
    assert mtasts.decode(mtasts.encode(entry)) == entry
    try:
        policy = mtasts.parse_policy(data)
    except mtasts.PolicyError:
        return
    assert 0 <= policy.max_age <= mtasts.LONGEST
    assert policy.patterns or policy.mode is mtasts.Mode.NONE
    policy.allows(data)


def web_pages(data: bytes) -> None:
    """The policy host's answer."""
    try:
        https.understand(data, True, 1000)
    except https.HttpsError:
        pass


def metrics_requests(data: bytes) -> None:
    """What asks for metrics."""
    answer = metrics_http.respond(data, lambda path: metrics_http.Page(path.encode("latin-1")))
    assert answer.startswith(b"HTTP/1.1 ")


def counted_lines(data: bytes) -> None:
    """Lines of a log, and a file of counts."""
    for service in metrics_table.SERVICES:
        tally = metrics_count.Tally(service)
        known = tally.values.keys()
        for line in data.split(b"\n"):
            tally.line(line)
        assert tally.values.keys() == known
        assert all(value >= 0 for value in tally.values.values())
        metrics_count.decode(data, service)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        requests,
        replies,
        messages,
        decoded,
        rule_files,
        globs,
        tls_variables,
        proxy_headers,
        base64,
        login_lines,
        records,
        accounts,
        paths,
        envelopes,
        answers_to_us,
        sent,
        certificates,
        sts,
        web_pages,
        metrics_requests,
        counted_lines,
    )
}
