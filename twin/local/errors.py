"""What can go wrong while starting the embedded stack; each message is one clear sentence.

* LocalError              anything below; the message is fit for a user
  + PortTaken             a port that we were told to use is in use
  + AlreadyRunning        a stack of the same data directory is alive
  + ForeignDirectory      the data directory holds something that is not ours
  + MissingProgram        a program or package is not installed
  + JarsUnavailable       the jars of Kafka or HiveMQ could not be downloaded
  + NotConfigurable       a broker cannot be configured as asked
  + NotReady              a part did not become ready before its deadline
  + Died                  a process ended although nobody asked it to
  + Interrupted           the user asked to stop while the stack was starting
"""

from twin.wire.errors import CartwinError


class LocalError(CartwinError):
    """The embedded stack cannot do what was asked; the message is fit for a user."""


class PortTaken(LocalError):
    """A port that we were told to use is in use."""


class AlreadyRunning(LocalError):
    """A stack of the same data directory is alive."""


class ForeignDirectory(LocalError):
    """The data directory holds something that is not ours."""


class MissingProgram(LocalError):
    """A program or package is not installed."""


class JarsUnavailable(LocalError):
    """The jars of Kafka or HiveMQ could not be downloaded."""


class NotConfigurable(LocalError):
    """A broker cannot be configured as asked."""


class NotReady(LocalError):
    """A part did not become ready before its deadline."""


class Died(LocalError):
    """A process ended although nobody asked it to."""


class Interrupted(LocalError):
    """The user asked to stop while the stack was starting."""
