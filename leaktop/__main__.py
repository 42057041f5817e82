"""Entry point of ``python -m leaktop`` and of the ``leaktop`` command."""

import sys

from leaktop.cli import main

if __name__ == "__main__":
    sys.exit(main())
