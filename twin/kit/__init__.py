"""How any process behaves: settings, Kafka clients, clock, logs, metrics, health.

Knows nothing of twins; may use `twin.wire`.
"""
