"""rblsmtpd [ options ] prog [ args ... ]: see docs/man/rblsmtpd.8."""

import getopt
import os
import select
import time
from typing import NamedTuple

from acceptutils.fixsmtpio.client import Client
from acceptutils.rblsmtpd import lists, lookup, refusing
from acceptutils.rblsmtpd.lists import Finding, Found, Question, Refusal, Source
from acceptutils.server.addresses import Network, plain
from ucspi import chain, log

NAME = "rblsmtpd"
USAGE = (
    "usage: rblsmtpd [-b | -B] [-c | -C] [-t seconds] [-r zone[=codes][:text]] [-a zone[=codes]]"
    " [-n network,...] prog [args ...]"
)
EXIT_USAGE = 100
SECONDS = 60
MOST_SECONDS = 86400
BACKLOG = 65536  # bytes of replies that a client has not taken, before no more is read


class UsageError(Exception):
    """The command line is wrong."""


class Options(NamedTuple):
    """What the command line says; the defaults are those of an option not given."""

    program: list[str]
    sources: tuple[Source, ...] = ()  # -r, -a
    exempt: tuple[Network, ...] = ()  # -n
    permanent: bool = False  # -b, -B
    closed: bool = False  # -c, -C
    seconds: int = SECONDS  # -t


_PERMANENT = {"-b": True, "-B": False}
_CLOSED = {"-c": True, "-C": False}


def parse(arguments: list[str]) -> Options:
    """Return the options that arguments, without the program's own name, spell.

    Raises:
        UsageError: an unknown option, a bad value, or no program.
    """
    try:
        pairs, rest = getopt.getopt(arguments, "bBcCt:r:a:n:")
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from error
    if not rest:
        raise UsageError("a program is wanted")
    options = Options(rest)
    for flag, value in pairs:
        try:
            options = _apply(options, flag, value)
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from error
    return options


def _apply(options: Options, flag: str, value: str) -> Options:
    if flag in _PERMANENT:
        return options._replace(permanent=_PERMANENT[flag])
    if flag in _CLOSED:
        return options._replace(closed=_CLOSED[flag])
    if flag == "-t":
        if not (value.isascii() and value.isdigit() and int(value) <= MOST_SECONDS):
            raise ValueError(f"not a number of seconds: {value}")
        return options._replace(seconds=int(value))
    if flag == "-n":
        networks = tuple(Network(block) for block in value.split(",") if block)
        return options._replace(exempt=options.exempt + networks)
    source = lists.parse(value, allows=flag == "-a")
    return options._replace(sources=(*options.sources, source))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Become the rest of the command line, or refuse the client's mail.

    Returns:
        0 for a client that was refused; 100 on misuse; else what the program returns.
    """
    try:
        options = parse(argv[1:])
    except UsageError as error:
        log.event(env, f"{NAME}: {error}: {USAGE}")
        return EXIT_USAGE
    refusal = refusal_for(options, env)
    if refusal is None:
        return chain.run(options.program, env)
    _event(env, refusing.refusal_line(refusal).decode("ascii"))
    _converse(refusal, options.seconds)
    return 0


def refusal_for(options: Options, env: dict[str, str]) -> Refusal | None:
    """Return why the client is refused, None when it is not: by RBLSMTPD, else by the lists."""
    told = env.get("RBLSMTPD")
    if told is not None:
        if told.startswith("-"):
            return Refusal(lists.PERMANENT, told[1:])
        return Refusal(lists.TEMPORARY, told) if told else None
    address = plain(env.get("TCPREMOTEIP", ""))
    if not (address and options.sources) or "RELAYCLIENT" in env:
        return None
    if any(address in network for network in options.exempt):
        return None
    try:
        return _look_up(options, address, env)
    except ValueError as error:
        _event(env, f"not looked up: {error}")
        return None


def _look_up(options: Options, address: str, env: dict[str, str]) -> Refusal | None:
    """Ask the lists.

    Raises:
        ValueError: the client's address is none.
    """
    sources = options.sources
    asked = [lists.questions(source, address) for source in sources]

    def findings(answers: lookup.Answers, *, last: bool = False) -> list[Finding | None]:
        return [
            _finding(source, address, mine, answers, last)
            for source, mine in zip(sources, asked, strict=True)
        ]

    def decide(found: list[Finding | None]) -> Refusal | None:
        return lists.decide(sources, found, permanent=options.permanent, closed=options.closed)

    def enough(answers: lookup.Answers) -> bool:
        try:
            decide(findings(answers))
        except lists.Undecided:
            return False
        return True

    wanted = dict.fromkeys(question for mine in asked for question in mine)
    answers = lookup.ask(list(wanted), lookup.servers(env), enough)
    final = findings(answers, last=not enough(answers))
    for source, finding in zip(sources, final, strict=True):
        if finding is not None and finding.found is Found.FAILED:
            _event(env, f"unable to ask {source.zone}: {finding.why}")
    return decide(final)


def _finding(
    source: Source, address: str, asked: list[Question], answers: lookup.Answers, last: bool
) -> Finding | None:
    """Return what a list says; None while an answer that matters may still come."""
    codes, texts = (*(answers.get(question) for question in asked), None)[:2]
    finding = lists.judge(source, address, codes, texts)
    if not last:
        listed_by_text = codes is not None and not codes and source.codes is None
        text_matters = finding.found is Found.LISTED or listed_by_text
        if codes is None or (len(asked) > 1 and texts is None and text_matters):
            return None
    return finding


def _event(env: dict[str, str], text: str) -> None:
    log.event(env, f"{NAME}: {env.get('TCPREMOTEIP', '')} pid {os.getpid()}: {text}")


def _converse(refusal: Refusal, seconds: int) -> None:
    """Refuse what the client on descriptors 0 and 1 asks for, until it ends or time does."""
    deadline = time.monotonic() + seconds
    conversation = refusing.Conversation(refusal)
    client = Client()
    pending = refusing.GREETING
    try:
        while pending or not conversation.over:
            poller = select.poll()
            reads = not conversation.over and len(pending) < BACKLOG
            if reads:
                poller.register(0, select.POLLIN)
            if pending:
                poller.register(1, select.POLLOUT)
            left = deadline - time.monotonic()
            ready = dict(poller.poll(left * 1000)) if left > 0 else {}
            if not ready:
                return
            if pending and 1 in ready:
                pending = pending[client.write(pending) :]
            if reads and 0 in ready:
                data = client.read()
                conversation.over = data == b""
                pending += conversation.feed(data or b"")
        client.linger()
    except OSError:
        pass  # gone
    finally:
        client.release()
