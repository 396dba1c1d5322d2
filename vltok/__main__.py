"""`python -m vltok`, which is what `torchrun -m vltok` runs."""

import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        # -m puts the current folder first, whose modules the installed `vltok` does not see either
        del sys.path[0]
    from vltok.cli.main import main

    sys.exit(main())
