"""One name for each account, however it is written at a login."""

import os


class Names:
    """The accounts' names, as far as they can be known without the accounts.

    Letters count in any case. Where mail is received for one domain only, a name without a
    domain is one of it, as checkpassword takes it.

    Args:
        path: of a file with a domain at the start of each line, such as
            control/virtualdomains; it is read again when it changes. Empty: none.
    """

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._suffix = b""

    def canonical(self, account: bytes) -> bytes:
        """Return the one name of the account that a client has named."""
        account = account.lower()
        return account if b"@" in account else account + self._domain()

    def _domain(self) -> bytes:
        if not self._path:
            return b""
        try:
            status = os.stat(self._path)
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version != self._version:
                with open(self._path, "rb") as file:
                    self._suffix = _only_domain(file.read())
                self._version = version
        except OSError:
            self._version, self._suffix = None, b""
        return self._suffix


def _only_domain(content: bytes) -> bytes:
    """Return ``@domain`` where one domain alone is listed, else nothing."""
    lines = [line.strip() for line in content.split(b"\n")]
    domains = {line.partition(b":")[0].lower() for line in lines if line and line[:1] != b"#"}
    return b"@" + domains.pop() if len(domains) == 1 else b""
