"""Host names made whole: the rewriting instructions of mess822 (rewriting(5))."""

from collections.abc import Iterable
from typing import NamedTuple

from ucspi import control


class Instruction(NamedTuple):
    """``=post:new``, ``*post:new``, ``?post:new`` or ``-post:new``."""

    kind: bytes
    post: bytes  # in lower case
    new: bytes

    def apply(self, host: bytes) -> bytes:
        """Return host, rewritten if the instruction is about it."""
        lowered = host.lower()
        if self.kind == b"=":
            return self.new if lowered == self.post else host
        if not lowered.endswith(self.post):
            return host
        pre = host[: len(host) - len(self.post)]
        if self.kind == b"-":
            return self.new
        if self.kind == b"?" and any(byte in pre for byte in b".[]"):
            return host
        return pre + self.new


KINDS = (b"=", b"*", b"?", b"-")


def parse(lines: Iterable[bytes]) -> tuple[Instruction, ...]:
    """Return the instructions in lines; what is no instruction is passed over."""
    found = []
    for line in lines:
        post, colon, new = line[1:].partition(b":")
        if line[:1] in KINDS and colon:
            found.append(Instruction(line[:1], post.lower(), new.strip(b" \t")))
    return tuple(found)


def standard(default_host: bytes, default_domain: bytes, plus_domain: bytes) -> list[bytes]:
    """Return the instructions that hold when there is no control/rewrite."""
    return [b"*.:", b"=:" + default_host, b"*+:." + plus_domain, b"?:." + default_domain]


class Rewriter(NamedTuple):
    """All instructions, in order; each is followed at most once."""

    instructions: tuple[Instruction, ...]

    def host(self, host: bytes) -> bytes:
        """Return the whole name for a host, empty for an address without one."""
        for instruction in self.instructions:
            host = instruction.apply(host)
        return host

    def address(self, address: bytes) -> bytes:
        """Return an envelope address with its host made whole; the empty one stays empty."""
        if not address:
            return address
        box, at, host = address.rpartition(b"@")
        if not at:
            box = address
            host = b""
        new = self.host(host)
        return box + b"@" + new if new or at else box


def setting(name: str, env: dict[str, str]) -> bytes:
    """Return control/NAME, over which the environment's QMAILNAME wins; else me.

    Raises:
        ControlError: there is none of them.
    """
    value = env.get("QMAIL" + name.upper())
    if value is not None:
        return value.encode("utf-8", "surrogateescape")
    line = control.read_line(name, or_me=True)
    if line is None:
        raise control.ControlError(f"neither control/{name} nor control/me exists")
    return line


def read(env: dict[str, str]) -> Rewriter:
    """Return the rewriter that the control files and the environment describe.

    Raises:
        ControlError: a file cannot be read, or is missing together with me.
    """
    lines = control.read_lines("rewrite")
    if lines is None:
        names = ("defaulthost", "defaultdomain", "plusdomain")
        lines = standard(*(setting(name, env) for name in names))
    return Rewriter(parse(lines))
