"""Commands as bytes of the Redis protocol (RESP), for the few thousand a second that telemetry costs.

redis-py packs any argument of any command at about 0.5 us each; a twin has a dozen.
Source: redis.io/docs/latest/develop/reference/protocol-spec, arrays of bulk strings.
"""


def packed(*arguments: bytes | str | float) -> bytes:
    """One command."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def scored(vehicle_id: str, scores: list[float]) -> list[str]:
    """Of each score two of ZADD's arguments."""
    member = f"\r\n${len(vehicle_id)}\r\n{vehicle_id}\r\n"
    return [f"${len(text)}\r\n{text}{member}" for text in map(repr, scores)]


def zadd(key: str, pairs: list[str]) -> bytes:
    """ZADD of `scored` pairs."""
    head = f"*{2 + 2 * len(pairs)}\r\n$4\r\nZADD\r\n${len(key)}\r\n{key}\r\n"
    return (head + "".join(pairs)).encode()


def mset(pairs: list[bytes]) -> list[bytes]:
    """MSET, in pieces that are not joined yet; `pairs`: what is `native.index.before` a text, and it."""
    return [b"*%d\r\n$4\r\nMSET" % (1 + len(pairs)), *pairs, b"\r\n"]


MULTI = packed("MULTI")
EXEC = packed("EXEC")
