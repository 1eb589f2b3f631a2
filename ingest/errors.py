"""Errors of the bridge. Bad messages are no errors here: they become `rejected` records.

* CartwinError                    (twin.wire.errors)
  + IngestError                   anything the bridge raises on purpose
    - ProtocolError               the broker's bytes are no MQTT, or not what MQTT allows here
    - ConnectionRefused           the broker answered the handshake with a refusal; carries `code`
    - AccessUnusable              a file that a connection needs cannot be used; names setting and file
    - ConnectionLost              the connection ended; send again what has no PUBACK
    - SessionTakenOver            another client uses our client id; going on would make both flap
    - KafkaRefused                Kafka will never take a record; the process ends, no PUBACK
"""

from twin.wire.errors import CartwinError


class IngestError(CartwinError):
    """Anything the bridge raises on purpose; the message is fit for an operator."""


class ProtocolError(IngestError):
    """The broker's bytes are no MQTT, or not what MQTT allows at this point."""


class ConnectionRefused(IngestError):
    """The broker answered CONNECT or SUBSCRIBE with a refusal; `code` is its reason code."""

    def __init__(self, detail: str, code: int) -> None:
        super().__init__(detail)
        self.code = code


class AccessUnusable(IngestError):
    """A certificate, key or password cannot be used; `why` is the sentence without the setting."""

    def __init__(self, setting: str, path: str, why: str) -> None:
        super().__init__(f"{setting} {path!r}: {why}")
        self.setting = setting
        self.why = why


class ConnectionLost(IngestError):
    """The connection ended. A publish without PUBACK may have arrived: send it again."""


class SessionTakenOver(IngestError):
    """Another client connected under our client id; two bridges on one shard would break order."""


class KafkaRefused(IngestError):
    """Kafka will never take this record. The source keeps it: no PUBACK, no commit."""
