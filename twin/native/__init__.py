"""What every message passes, in C by way of Cython: reading telemetry, and twins at rest.

It stands below `twin.wire` and imports nothing of cartwin. Each module's `.pyi` says what it offers;
how it is used and what must hold of it is said, and tested, where it is used: `twin.wire.codec`,
`twin.packed`. Measured in DECISIONS.md, 33.
"""
