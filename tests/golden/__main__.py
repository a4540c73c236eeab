"""Write a folder of golden files: ``python -m tests.golden NAME [twins|segments]``."""

import sys

from tests.golden import HERE, write
from tests.golden.alerts import write_alerts
from tests.golden.segments import write_segments
from tests.golden.twins import write_twins

folder = HERE / sys.argv[1]
only = sys.argv[2:]
if not only:
    write(folder)
    write_alerts(folder)
folder.mkdir(exist_ok=True)
if only != ["segments"]:
    write_twins(folder)
if only != ["twins"]:
    write_segments(folder)
