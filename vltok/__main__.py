"""`python -m vltok`, which is what `torchrun -m vltok` runs."""

import sys

from vltok.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
