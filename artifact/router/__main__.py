"""`python -m artifact.router`: see `artifact.router.server`."""

import sys

from artifact.router.server import main

if __name__ == "__main__":
    sys.exit(main())
