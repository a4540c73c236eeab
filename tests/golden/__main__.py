"""Write a folder of golden files: ``python -m tests.golden NAME [twins]``."""

import sys

from tests.golden import HERE, write
from tests.golden.alerts import write_alerts
from tests.golden.twins import write_twins

folder = HERE / sys.argv[1]
if sys.argv[2:] != ["twins"]:
    write(folder)
    write_alerts(folder)
write_twins(folder)
