"""`python -m r2_deletion_queue`."""

import sys

from ._cli import main

sys.exit(main())
