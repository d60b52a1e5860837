"""What holds for every unit test.

Property tests: a busy machine is no failure, and CI tries the same examples each time.
Descriptors: which tests ran before in the same process, and what they left open, is chance.
So low numbers are taken from the start: a test that counts on them fails each time.
"""

import os

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("busy"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "busy")

TAKEN = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
