"""A request to stop: clusters send SIGTERM some seconds before they take a machine away."""

from __future__ import annotations

import signal
import threading
from typing import Any

from llavakit.base.dist import share


class Stop:
    """Within the context SIGTERM is noted, not obeyed; :meth:`asked` says whether any rank got one."""

    def __init__(self) -> None:
        self.noted = False
        self.before: Any = None

    def __enter__(self) -> Stop:
        # Python allows handlers in the main thread only; a run in another one ends by SIGTERM as it always did.
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *failure: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def _note(self, number: int, frame: object) -> None:
        self.noted = True

    def asked(self) -> bool:
        return any(share(self.noted))
