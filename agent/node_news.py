"""What servers should hear about the node itself: its facts, and what keeps it from starting containers."""

import asyncio


class NodeNews:
    """The present trouble, "" if there is none, and whether something has changed since it was last told."""

    def __init__(self) -> None:
        self.trouble = ""
        self.has_changed = asyncio.Event()

    def set_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.has_changed.set()

    def facts_changed(self) -> None:
        self.has_changed.set()
