"""What is said between the parts: records, signals, codecs, topics, errors.

Pure: no I/O, no framework, nothing of ours is imported from outside this package. Every process
and the simulated cars import it, so one set of laws (tests/unit/wire) covers them all.
"""
