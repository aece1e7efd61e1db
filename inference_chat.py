"""The same as `g2vlm chat`, under the name that the public project documents."""

import sys

from g2vlm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["chat", *sys.argv[1:]]))
