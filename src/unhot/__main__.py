"""``python -m unhot``."""

import sys

from unhot.cli import main

if __name__ == "__main__":
    sys.exit(main())
