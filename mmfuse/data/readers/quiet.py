"""Keeps libraries that read files silent: what they warn of is the file's fault, and may repeat what is in it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_LIBRARIES = ("PIL", "pydicom", "pylibjpeg", "libjpeg", "openjpeg")
_MODULES = rf"({'|'.join(_LIBRARIES)})(\.|$)"
_loggers = [logging.getLogger(name) for name in _LIBRARIES]
_lock = threading.Lock()
_users = 0
for _logger in _loggers:
    _logger.addHandler(logging.NullHandler())  # a logger that reaches no handler at all prints
_silence = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and logs of Pillow, pydicom and its plug-ins, in as many threads as are in it.

    Warning filters and loggers belong to the process: the first thread changes them, the last one puts them back. A
    handler that the user gave to one of these libraries' own loggers still hears it.
    """
    global _users
    with _lock:
        if _users == 0:
            _silence.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=_MODULES)
            for logger in _loggers:  # not their level: setting it costs more than reading a small image
                _silence.callback(setattr, logger, "propagate", logger.propagate)
                logger.propagate = False
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _silence.close()
