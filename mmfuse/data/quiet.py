"""Keeps libraries that read files silent: what they warn of is the file's fault, and may repeat what is in it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_LIBRARIES = ("PIL", "pydicom", "pylibjpeg", "libjpeg", "openjpeg")
_lock = threading.Lock()
_users = 0
_silence = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and logs of Pillow, pydicom and its plug-ins, in as many threads as are in it.

    Warning filters and log levels belong to the process: the first thread sets them, the last one puts them back.
    """
    global _users
    with _lock:
        if _users == 0:
            _silence.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")
            for logger in map(logging.getLogger, _LIBRARIES):
                _silence.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _silence.close()
