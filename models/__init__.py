"""Models: physics to learn from, features, training from Kafka, registry, scoring on the stream."""
