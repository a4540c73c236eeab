"""Windows that go up in place of readings.

The ring is the log that they are folded from: a reading is in it before it is acknowledged. Open
windows are stored with the place in the ring up to which they have been folded, and what comes
behind it is read again after a crash. So what is told twice has the same key and the same bits.

``site`` folds and ``near`` finds the readings around anomalies: both pure. ``store`` keeps
checkpoints, ``work`` reads the ring, and puts what comes of it into the spool.
"""
