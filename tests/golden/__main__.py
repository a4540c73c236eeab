"""Write a folder of golden files: ``python -m tests.golden NAME [twins | segments | rules]``."""

import sys

from tests.golden import HERE, write
from tests.golden.alerts import write_alerts
from tests.golden.rules import write_rules
from tests.golden.segments import write_segments
from tests.golden.twins import write_twins

folder = HERE / sys.argv[1]
wanted = sys.argv[2:] or ["readings", "twins", "segments", "rules"]
if "readings" in wanted:
    write(folder)
    write_alerts(folder)
folder.mkdir(exist_ok=True)
if "twins" in wanted:
    write_twins(folder)
if "segments" in wanted:
    write_segments(folder)
if "rules" in wanted:
    write_rules(folder)
