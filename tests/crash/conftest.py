"""The tests below need ptrace and seccomp, of x86-64."""

import pytest
from lab import ptrace


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    """Skip where a process may not be stopped at its system calls."""
    if not ptrace.supported():
        pytest.skip("needs ptrace and seccomp filters, on x86-64")
