"""The names that were asked for lately, kept in memory."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from .picture import normalise


@dataclass(frozen=True)
class Portrait:
    """A name as it was first written, and how often it was asked for."""

    name: str
    views: int


class Gallery:
    """The last ``capacity`` names, latest first. Several threads may use it at once."""

    def __init__(self, capacity: int = 60):
        self._capacity = capacity
        self._portraits: OrderedDict[str, Portrait] = OrderedDict()
        self._lock = Lock()

    def view(self, name: str) -> Portrait:
        """Counts one more view of ``name`` and moves it to the front."""
        key = normalise(name)
        with self._lock:
            seen = self._portraits.pop(key, Portrait(" ".join(name.split()), 0))
            portrait = Portrait(seen.name, seen.views + 1)
            self._portraits[key] = portrait
            if len(self._portraits) > self._capacity:
                self._portraits.popitem(last=False)
        return portrait

    def latest(self) -> list[Portrait]:
        """All names that are still remembered, latest first."""
        with self._lock:
            return list(reversed(self._portraits.values()))
