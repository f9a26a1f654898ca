"""Structured logs: a constant sentence, then key=value. One line an entry, whatever the values hold."""

import json
import logging
import sys


class Log:
    """A logger whose entries carry fields: `log.info("allocation placed", allocation=a.id, node=n.name)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, sentence: str, **fields: object) -> None:
        self._write(logging.DEBUG, sentence, fields)

    def info(self, sentence: str, **fields: object) -> None:
        self._write(logging.INFO, sentence, fields)

    def warning(self, sentence: str, **fields: object) -> None:
        self._write(logging.WARNING, sentence, fields)

    def error(self, sentence: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        self._write(logging.ERROR, sentence, fields, exc_info)

    def _write(
        self, level: int, sentence: str, fields: dict[str, object], exc_info: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            text = " ".join([sentence, *(f"{key}={_quoted(value)}" for key, value in fields.items())])
            self._logger.log(level, "%s", text, exc_info=exc_info)


def set_up_logs(*, level: str = "info", daemon: str = "wherry") -> None:
    """Send this process's logs to standard error, one line an entry, with the daemon's name in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {daemon} %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _quoted(value: object) -> str:
    """Return the value as it is if it is one plain word, else as a JSON string, so that it can't forge a line."""
    text = str(value)
    plain = text.isprintable() and text.isascii() and not any(c in text for c in ' "=')
    return text if text and plain else json.dumps(text)
