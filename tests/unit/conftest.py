"""Property tests: a busy machine is no failure, and CI tries the same examples each time."""

import os

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("busy"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "busy")
