"""Linux-PAM, as much of it as says whether a password is right: pam(3).

Bound here with ctypes. PyPAM (python3-pam) has seen no release in this decade; python-pam
(python3-pampy) has, but sets no PAM_RHOST before it authenticates, and asks for credentials
that nobody would use. What is needed are six functions of an interface that does not change.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_void_p, cast
from typing import Any

SUCCESS = 0
SYSTEM_ERROR = 4
BUFFER_ERROR = 5
CONVERSATION_ERROR = 19

PROMPT_ECHO_OFF, PROMPT_ECHO_ON, ERROR_MESSAGE, TEXT_INFO = 1, 2, 3, 4

USER, REMOTE_HOST = 2, 4  # items
DISALLOW_NULL_PASSWORD = 0x0001
SILENT = 0x8000

# Return values that are about the user; any other is about PAM itself.
REFUSALS = frozenset(
    {
        6,  # PERM_DENIED
        7,  # AUTH_ERR
        8,  # CRED_INSUFFICIENT
        10,  # USER_UNKNOWN
        11,  # MAXTRIES
        12,  # NEW_AUTHTOK_REQD: expired, and nobody is there to be asked for another
        13,  # ACCT_EXPIRED
        16,  # CRED_EXPIRED
        27,  # AUTHTOK_EXPIRED
    }
)

MOST_MESSAGES = 32


class _Message(Structure):
    _fields_ = (("style", c_int), ("text", c_char_p))


class _Response(Structure):
    _fields_ = (("text", c_void_p), ("retcode", c_int))


_Converse = CFUNCTYPE(c_int, c_int, POINTER(POINTER(_Message)), POINTER(c_void_p), c_void_p)


class _Conversation(Structure):
    _fields_ = (("converse", _Converse), ("data", c_void_p))


class PamError(Exception):
    """PAM cannot say; str() is the function and what it returned."""


class PamSystemError(PamError):
    """A system error; or a command of pam_exec has failed, which has no other word for no."""


class Library:
    """libpam, loaded.

    Raises:
        OSError: it is not here.
    """

    def __init__(self) -> None:
        self._pam = ctypes.CDLL("libpam.so.0")
        self._libc = ctypes.CDLL(None)
        handle, string = c_void_p, c_char_p
        for name, arguments in {
            "pam_start": (string, string, POINTER(_Conversation), POINTER(handle)),
            "pam_set_item": (handle, c_int, c_void_p),
            "pam_get_item": (handle, c_int, POINTER(c_void_p)),
            "pam_authenticate": (handle, c_int),
            "pam_acct_mgmt": (handle, c_int),
            "pam_end": (handle, c_int),
        }.items():
            function = getattr(self._pam, name)
            function.argtypes, function.restype = arguments, c_int
        self._pam.pam_strerror.argtypes = (handle, c_int)
        self._pam.pam_strerror.restype = string
        self._libc.calloc.argtypes, self._libc.calloc.restype = (c_size_t, c_size_t), c_void_p
        self._libc.strdup.argtypes, self._libc.strdup.restype = (string,), c_void_p

    def check(
        self,
        service: str,
        user: bytes,
        password: bytes,
        remote: str = "",
        note: Callable[[str], None] = lambda line: None,
    ) -> bytes | None:
        """Authenticate, then look whether the account may be used now.

        Args:
            service: the name of a file in /etc/pam.d.
            user: as PAM is to know it.
            password: what is answered to every question that asks for a secret.
            remote: the client's address, for modules that look at it.
            note: takes a line about each step; never one with the password.

        Returns:
            The name that PAM has for the user in the end, None when refused.

        Raises:
            PamError: PAM failed.
        """
        # Both must outlive pam_end.
        converse = _Converse(self._conversation(user, password, note))
        conversation = _Conversation(converse, None)
        handle = c_void_p()
        began = self._pam.pam_start(service.encode(), user, byref(conversation), byref(handle))
        if began != SUCCESS:
            raise PamError(f"pam_start: error {began}")
        result = SUCCESS
        try:
            if remote:
                self._pam.pam_set_item(handle, REMOTE_HOST, c_char_p(remote.encode()))
            for step in ("pam_authenticate", "pam_acct_mgmt"):
                flags = SILENT | DISALLOW_NULL_PASSWORD
                result = getattr(self._pam, step)(handle, flags)
                said = (self._pam.pam_strerror(handle, result) or b"").decode("ascii", "replace")
                note(f"{step}: {said}")
                if result in REFUSALS:
                    return None
                if result == SYSTEM_ERROR:
                    raise PamSystemError(f"{step}: {said}")
                if result != SUCCESS:
                    raise PamError(f"{step}: {said}")
            return self._user(handle)
        finally:
            self._pam.pam_end(handle, result)

    def _user(self, handle: c_void_p) -> bytes:
        item = c_void_p()
        if self._pam.pam_get_item(handle, USER, byref(item)) != SUCCESS or not item.value:
            raise PamError("pam_get_item: no user")
        return cast(item, c_char_p).value or b""

    def _conversation(
        self, user: bytes, password: bytes, note: Callable[[str], None]
    ) -> Callable[[int, Any, Any, Any], int]:
        def answer(message: _Message) -> bytes | None:
            if message.style == PROMPT_ECHO_OFF:
                return password
            if message.style == PROMPT_ECHO_ON:
                return user
            note(f"says: {(message.text or b'').decode('utf-8', 'replace')}")
            return None

        # The array and the answers are freed by whoever asked, so they are libc's.
        def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:
            if not 0 < count <= MOST_MESSAGES:
                return CONVERSATION_ERROR
            array = self._libc.calloc(count, ctypes.sizeof(_Response))
            if not array:
                return BUFFER_ERROR
            given = cast(array, POINTER(_Response))
            for position in range(count):
                text = answer(messages[position].contents)
                if text is not None:
                    given[position].text = self._libc.strdup(text)
            responses[0] = array
            return SUCCESS

        return converse
