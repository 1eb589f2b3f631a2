"""Errors of training, storing and scoring; each message is one sentence fit for a user.

* ModelsError             anything models/ raises on purpose
  + NotDelivered          Kafka did not confirm every record of a simulated history
  + BadFiles              Parquet files are missing, unreadable or of another form
  + NotEnoughData         the log does not hold what training or evaluation needs
  + LogChanged            what was read is not what the log's offsets promised
  + ArtefactRefused       a stored model is missing, altered or does not compute what it promised
  + StoreUnusable         the model store cannot be reached, read or written
  + NoSuchModel           no model has the role that a command needs
  + ReadingEnded          Kafka ended the reading of telemetry for good
"""

from twin.wire.errors import CartwinError


class ModelsError(CartwinError):
    """Anything models/ raises on purpose."""


class NotDelivered(ModelsError):
    """Kafka did not confirm every record of a simulated history."""


class BadFiles(ModelsError):
    """Parquet files are missing, unreadable or of another form."""


class NotEnoughData(ModelsError):
    """The log does not hold what training or evaluation needs."""


class LogChanged(ModelsError):
    """What was read is not what the log's offsets promised."""


class ArtefactRefused(ModelsError):
    """A stored model is missing, altered or does not compute what it promised."""


class StoreUnusable(ModelsError):
    """The model store cannot be reached, read or written."""


class NoSuchModel(ModelsError):
    """No model has the role that a command needs."""


class ReadingEnded(ModelsError):
    """Kafka ended the reading of telemetry for good."""
