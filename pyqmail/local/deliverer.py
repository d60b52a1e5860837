"""From a request of qmail-send to qmail-local: whose mail it is, and becoming that user."""

import os

from pyqmail.local import domains, exitcodes, identity, owner, program
from pyqmail.local.envelope import Envelope
from pyqmail.local.returnpath import NoSuchAddress, ReturnPaths
from pyqmail.send.spawnprotocol import Request
from pyqmail.spawn import Plan
from pyqmail.spawnchild import complain
from pyqmail.users import lookup
from pyqmail.users.lookup import Assignment
from ucspi import cdb


class Deliverer:
    """Plans deliveries in qmail-lspawn, and makes them in its children."""

    def __init__(self, home: str, default_delivery: bytes, env: dict[str, str]) -> None:
        """Deliver for the mail system at home.

        Args:
            home: the qmail home.
            default_delivery: for users without a .qmail file.
            env: for qmail-local.
        """
        self._home = home
        self._default_delivery = default_delivery
        self._env = env
        self._return_paths = ReturnPaths(home, env)
        self._path = os.path.join(home, lookup.CDB)
        self._version: tuple[int, int, int] | None = None
        self._database: cdb.Reader | None = None

    def plan(self, request: Request) -> Plan:
        """Return how to deliver. Runs in qmail-lspawn.

        An address that users/cdb lists gets a child that may deliver to the same user
        again. For any other, the child has to find out: the password database may be
        slow, and what is wrong with users/cdb is for the child to say.
        """
        # Only here, as root, are the secrets at hand; see returnpath.
        outside_sender = self._return_paths.sender_for(request.sender)
        fields: tuple[bytes, ...] = (request.sender, request.recipient, outside_sender)
        try:
            target = self._return_paths.target_of(request.recipient)
        except NoSuchAddress:
            target = None  # as any address: it may have a mailbox
        if target is not None:
            return Plan(None, b"\0".join((*fields, target)))
        user = self._listed(request.recipient.rpartition(b"@")[0])
        if user is None or user.uid == 0:
            return Plan(None, b"\0".join(fields))
        numbers = (b"%d" % user.uid, b"%d" % user.gid)
        fields = (*fields, user.user, *numbers, user.home, user.dash, user.ext)
        return Plan((user.uid, user.gid), b"\0".join(fields))

    def _listed(self, local: bytes) -> Assignment | None:
        """Return the assignment in users/cdb, None if there is none or no telling."""
        if not local:
            return None
        try:
            version = domains.file_version(self._path)
            if version != self._version or self._database is None:
                if self._database is not None:
                    self._database.close()
                self._database = None
                self._database = cdb.Reader(self._path)
                self._version = version
            return lookup.find(self._database, local)
        except (OSError, cdb.FormatError, lookup.DamagedError):
            return None

    def deliver(self, payload: bytes) -> int:
        """Deliver as the recipient's user, and return the exit status.

        Runs in a child: as root at first, as the user from then on.
        """
        sender, recipient, outside_sender, *found = payload.split(b"\0")
        local, _, host = recipient.rpartition(b"@")
        if not local:
            return exitcodes.SUCCESS  # an empty mailbox name is a trash address
        env = self._env
        if outside_sender:
            env = {**env, "SRS_SENDER": os.fsdecode(outside_sender)}
        returned = len(found) == 1
        try:
            listed = found and not returned
            user = lookup.parse(b"\0".join(found)) if listed else self._find(local)
            identity.become(user.uid, user.gid)
        except owner.LookupFailure as failure:
            return failure.status
        except identity.RootError:
            return exitcodes.ROOT
        except (identity.IdentityError, OSError) as error:
            complain(self._env, f"qmail-lspawn: {os.fsdecode(local)}: {error}")
            return exitcodes.USAGE
        fields = (user.user, user.home, local, user.dash, user.ext, host, sender)
        if returned:
            return program.forward(Envelope(*fields, b""), found[0], env)
        words = [os.fsdecode(field) for field in (*fields, self._default_delivery)]
        return program.main(["qmail-local", "--", *words], env)

    def _find(self, local: bytes) -> Assignment:
        os.chdir(self._home)
        return owner.find(local)
