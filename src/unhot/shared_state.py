"""What all threads of a process share, and the lock for it."""

from __future__ import annotations

from threading import RLock

# Held while the global generators, the filters of warnings, stderr, the level of logging or the style of plots are
# changed and until they are given back: two threads that do so at once would get each other's numbers, and would leave
# behind what the other one had set.
SHARED_STATE = RLock()
