"""The spool: what was acknowledged at the edge waits here, on disk, until it is in Kafka.

``records`` says how a record lies in a file, ``plan`` what is given up when there is no room,
``losses`` how that is told: all pure. ``disk`` does what the file system does, ``lane`` keeps one
lane's segments, and ``spool`` puts them together.
"""
