"""Stores the references of published model types, for those who do not have the library: run it in `tests`.

python -m golden.store [NAME …]    all of them, or those whose names begin so
"""

import sys

from golden.cases import CASES
from golden.published import store

if __name__ == "__main__":
    for case in CASES:
        if len(sys.argv) < 2 or case.name.startswith(tuple(sys.argv[1:])):
            store(case)
            print(case.name, case.path.stat().st_size)
