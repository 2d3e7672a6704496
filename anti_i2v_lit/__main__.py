"""`python -m anti_i2v_lit` is `anti-i2v`."""

import sys

from anti_i2v_lit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
