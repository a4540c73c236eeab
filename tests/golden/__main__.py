"""Write a folder of golden files: ``python -m tests.golden NAME``."""

import sys

from tests.golden import HERE, write

write(HERE / sys.argv[1])
