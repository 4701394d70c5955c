"""Run the command line with ``python -m edgemask``."""

import sys

from edgemask.cli import main

if __name__ == "__main__":
    sys.exit(main())
