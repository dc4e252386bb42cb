"""``python -m crash``."""

import sys

from crash.proof import main

if __name__ == "__main__":
    sys.exit(main())
