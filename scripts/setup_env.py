"""Sets up everything that this project needs, in one virtual environment: `make setup`.

    python3 scripts/setup_env.py [--venv .venv] [--python python3.11]

Checks Python, Java and the disk; makes the environment; installs the pinned packages and this
project; fetches the jars; writes Spark's settings; proves that they work together. What is done
already is not done again. Exit code 2: something that only you can put right; 1: a step failed.
"""

import sys

# An old Python cannot even read the modules of the set-up: say so instead of a syntax error. This
# file itself is written for any Python 3.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.stderr.write(
        "set-up: Python 3.11 is needed (3.10 and 3.12 do as well); this is Python "
        + sys.version.split()[0]
        + " ("
        + sys.executable
        + "). Install it, or name it: make setup PYTHON=/path/to/python3.11\n"
    )
    sys.exit(2)

from environment.main import main

if __name__ == "__main__":
    sys.exit(main())
