"""Write the Authentication-Results field (RFC 8601)."""

import re
from collections.abc import Iterable

from pyqmail.mailauth.dkimverify import DkimResult
from pyqmail.mailauth.dmarc import DmarcResult
from pyqmail.mailauth.spfcheck import SpfResult

VALUE_LIMIT = 255
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+\Z")  # RFC 2045, 5.1
ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+./=?^_`{|}~-]*@[A-Za-z0-9.-]+\Z")


def value(text: str) -> str:
    """Return text as it can stand for a value: as it is, or quoted.

    What could end it for a reader who does not look at quotes becomes a question mark, as
    does what is not ASCII.
    """
    text = "".join(c if " " <= c <= "~" and c not in '"();\\' else "?" for c in text[:VALUE_LIMIT])
    return text if TOKEN.match(text) or ADDRESS.match(text) else f'"{text}"'


def comment(text: str) -> str:
    """Return text as a comment."""
    return "(" + "".join(c if " " <= c <= "~" and c not in "()\\" else "?" for c in text) + ")"


def field(
    identity: str,
    spf: SpfResult,
    sender: str,
    dkim: Iterable[DkimResult],
    dmarc: Iterable[DmarcResult],
) -> bytes:
    """Return the field, folded, with LF.

    Args:
        identity: who says so: our authserv-id.
        spf: the result of SPF.
        sender: the address in MAIL FROM.
        dkim: the results of the signatures.
        dmarc: the results for the authors' domains.
    """
    parts = [_spf(spf, sender)]
    parts += [_dkim(one) for one in dkim] or ["dkim=none"]
    parts += [_dmarc(one) for one in dmarc]
    return ("Authentication-Results: " + ";\n\t".join([value(identity), *parts]) + "\n").encode()


def _spf(spf: SpfResult, sender: str) -> str:
    if spf.by_helo:
        where = f" smtp.helo={value(spf.domain)}" if spf.domain else ""
    else:
        where = f" smtp.mailfrom={value(sender if ADDRESS.match(sender) else spf.domain)}"
    return f"spf={spf.result}{where}"


def _dkim(one: DkimResult) -> str:
    words = [f"dkim={one.result}"]
    if one.reason:
        words.append(comment(one.reason))
    named = {"d": one.domain, "s": one.selector, "a": one.algorithm, "b": one.signature}
    words += [f"header.{tag}={value(text)}" for tag, text in named.items() if text]
    return " ".join(words[:3]) + "".join(f"\n\t\t{word}" for word in [" ".join(words[3:])] if word)


def _dmarc(one: DmarcResult) -> str:
    policy = f" (p={one.policy})" if one.result in ("pass", "fail") else ""
    return f"dmarc={one.result}{policy} header.from={value(one.domain)}"
