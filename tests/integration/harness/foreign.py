"""Services that consist of foreign programs in part, see the folder tests/integration/foreign."""

from typing import NamedTuple

from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

# As in services/*; the container's ports are published on other ones.
SERVICES = {
    "starttls-Y": 2001,
    "starttls-y": 2002,
    "shell": 2003,
    "shell-mx": 2004,
    "pop3": 2005,
    "hangs": 2006,
    "hangs-later": 2007,
    "exim-shipped": 2010,
    "exim-october-2018": 2011,
    "exim-empty": 2012,
    "exim-hostile": 2013,
    "exim-unparsable": 2014,
    "exim-mx-october-2018": 2015,
    "exim-mx-empty": 2016,
}
# As in services.postfix/*, in a container of its own.
POSTFIX_SERVICES = {
    "shell-mx": 2004,
    "postfix-shipped": 2010,
    "postfix-october-2018": 2011,
    "postfix-empty": 2012,
    "postfix-hostile": 2013,
    "postfix-mx": 2015,
}
SPEAKS_FIRST = [name for name in SERVICES if not name.startswith("starttls-")]

ALICE = Account("alice@example.test", "correct horse")


class Foreign(NamedTuple):
    """The appliance under tcpserver, and where the services of other people are."""

    appliance: Appliance
    ports: dict[str, int]

    def at(self, service: str, name: str = "submission") -> Endpoint:
        """Return a place where one foreign service goes by a name that a client knows."""
        return Endpoint("127.0.0.1", {name: self.ports[service]})

    def dialogue(self, service: str, **options: bool) -> Dialogue:
        """Connect to a foreign service."""
        name = "pop3" if service == "pop3" else "submission"
        return Dialogue(self.at(service, name), name, **options)


def logged_in(foreign: Foreign, service: str) -> Dialogue:
    """Connect to a foreign service and log in as Alice, inside TLS."""
    dialogue = foreign.dialogue(service)
    dialogue.say(b"EHLO client.example")
    dialogue.start_tls()
    dialogue.log_in(ALICE)
    return dialogue


def greeting(foreign: Foreign, service: str) -> list[bytes]:
    """Return the lines that a service greets with; none when it does not run yet."""
    try:
        with foreign.dialogue(service) as dialogue:
            return dialogue.greeting
    except OSError:
        return []
