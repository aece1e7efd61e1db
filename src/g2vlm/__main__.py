"""`python -m g2vlm`, the same as the `g2vlm` command."""

import sys

from g2vlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
