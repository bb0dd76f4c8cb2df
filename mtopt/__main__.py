"""``python -m mtopt``."""

import sys

from mtopt.cli import main

if __name__ == "__main__":
    sys.exit(main())
