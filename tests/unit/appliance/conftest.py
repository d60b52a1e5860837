"""A root file system of the appliance's own, for tests that are run as root."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from appliance import data
from appliance.layout import Layout

NEWU = """\
#!/bin/sh
# Stands in for qmail-newu: keeps what it was given, so that a test sees that it was.
cp "$QMAIL_HOME/users/assign" "$QMAIL_HOME/users/cdb"
"""


@pytest.fixture
def places() -> Iterator[Layout]:
    """A prepared volume and runtime, in a directory that every user may pass."""
    if os.geteuid() != 0:
        pytest.skip("needs root: owners are given away")
    root = tempfile.mkdtemp(prefix="postern-")
    try:
        os.chmod(root, 0o755)
        layout = Layout(root)
        for path in (layout.data, layout.control, layout.qmail + "/bin", layout.run):
            os.makedirs(path)
        os.symlink(layout.users, layout.qmail + "/users")
        newu = layout.qmail + "/bin/qmail-newu"
        with open(newu, "w") as file:
            file.write(NEWU)
        os.chmod(newu, 0o755)
        data.prepare_volume(layout)
        data.prepare_runtime(layout)
        yield layout
    finally:
        shutil.rmtree(root)
