"""The read model in Redis: what the API and the page see. Rebuildable; here are its only writers.

    rows of a batch -> Packing (few, big commands) -> Link (fenced transactions) -> Redis

Telemetry is the hot path: of a twin whose presence, health, attributes and commands are as they were
written last, only the document and the numbers that moved are written, with plain commands for many
twins at once. Everything else goes through a script that reads in Redis what it has to correct.
"""

from twin.view.link import FormerOwner
from twin.view.view import Shown, View

__all__ = ["FormerOwner", "Shown", "View"]
