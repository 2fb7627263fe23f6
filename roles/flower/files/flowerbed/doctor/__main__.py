"""`python -m flowerbed.doctor`: the doctor with nothing but the standard library."""

import sys

from flowerbed.doctor.cli import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
