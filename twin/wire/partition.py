"""Kafka's murmur2 partitioner: which partition a key belongs to.

All producers must agree on it, or a twin's table and its input streams part ways (confluent-kafka
must be told `partitioner=murmur2_random`; Java and aiokafka use it by default).
Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive (Apache Kafka).
"""


def murmur2(data: bytes) -> int:
    """32-bit murmur2 with Kafka's seed, as an unsigned integer."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` among `partitions` (0-based)."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
