"""How the tests are run."""

import os

from hypothesis import settings

# The machine may be busy: a slow example is no wrong one.
settings.register_profile("ours", deadline=None, database=None)
settings.load_profile("ours")

# Those of the real runtime need one: cargo xtask test starts it, and says where it is.
collect_ignore = [] if "R2_DELETION_URL" in os.environ else ["real"]
