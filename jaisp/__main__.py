# Licensed under a 3-clause BSD style license - see LICENSE
"""``python -m jaisp`` is ``jaisp``."""

import sys

from jaisp.cli import main

if __name__ == "__main__":
    sys.exit(main())
