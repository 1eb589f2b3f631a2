"""cartwin: one digital twin per connected car.

The package is split by process, and processes are joined by topics, never by imports:
`twin.wire` says what is said, `twin.kit` how any process behaves, the rest is one stage each.
"""
