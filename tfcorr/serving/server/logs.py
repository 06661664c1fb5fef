"""What libraries complain of, in one line each, and no more often than anyone reads: peers could fill the disk."""

import logging
import time

LIBRARIES = ("aiohttp.server", "aiohttp.web", "asyncio")


class OnceASecond(logging.Filter):
    """Lets a kind of message through once a second, its traceback as its last line."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        now = time.monotonic()
        if now - self._last.get(str(record.msg), -1.0) < 1:
            return False
        self._last[str(record.msg)] = now
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}: {error}", None
            record.exc_info = record.exc_text = None
        return True


def limit_logs() -> None:
    """Of all libraries that tell of peers."""
    for name in LIBRARIES:
        logging.getLogger(name).addFilter(OnceASecond())
