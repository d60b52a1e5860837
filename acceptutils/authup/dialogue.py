"""What the SMTP and the POP3 dialogue have in common."""

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar, NamedTuple, TypeVar

from acceptutils.authup import lines
from acceptutils.authup.credentials import Credentials
from acceptutils.authup.replies import Failure
from acceptutils.ucspitls import Availability


class Settings(NamedTuple):
    """What control files and environment say to a dialogue."""

    greeting: bytes
    capabilities: tuple[bytes, ...]
    broken_clients: bool  # AUTHUP_SASL_BROKEN_CLIENTS: also offer "AUTH=LOGIN PLAIN"
    availability: Availability


class Effect(Enum):
    """What is to be done once the reply is out."""

    NONE = auto()
    START_TLS = auto()
    ATTEMPT = auto()
    QUIT = auto()


class Turn(NamedTuple):
    """The dialogue's answer to one line."""

    reply: bytes = b""
    effect: Effect = Effect.NONE
    credentials: Credentials | None = None  # with ATTEMPT only


D = TypeVar("D", bound="Dialogue")
Handler = Callable[[D, bytes], Turn]


class Dialogue:
    """One connection's protocol state. It does no I/O and reads no clock."""

    name: ClassVar[str]
    default_tries: ClassVar[int]
    too_long: ClassVar[bytes]

    def __init__(self, settings: Settings, stamp: bytes) -> None:
        """Start in plaintext (or in the TLS that came with the connection).

        Args:
            settings: see Settings.
            stamp: ``pid.time``, for the POP3 greeting.
        """
        self.settings = settings
        self.stamp = stamp
        self.in_tls = False

    @property
    def may_start_tls(self) -> bool:
        """Whether TLS is offered now."""
        return self.settings.availability is not Availability.UNAVAILABLE and not self.in_tls

    @property
    def must_start_tls(self) -> bool:
        """Whether no password may be asked for before TLS has started."""
        return self.settings.availability is Availability.REQUIRED and not self.in_tls

    def greet(self) -> bytes:
        """Return the first line."""
        raise NotImplementedError

    def answer(self, line: bytes) -> Turn:
        """Take one line of the client's, without its line end."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget what the client said: TLS has started, or an attempt has failed."""
        raise NotImplementedError

    @staticmethod
    def failure(failure: Failure) -> bytes:
        """Return the reply for a failure."""
        raise NotImplementedError

    def line_limit(self, prefix: bytes) -> int:
        """Return how long a line may be that begins with prefix."""
        return lines.COMMAND_LIMIT

    def tls_started(self) -> None:
        """Go on inside TLS, as with a new client."""
        self.in_tls = True
        self.forget()


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Return the verb in upper case, and what follows the one space behind it."""
    verb, _, rest = line.partition(b" ")
    return verb.upper(), rest
