"""A service whose clock is off: every clock that Python offers, moved before the service's own code is imported."""

from __future__ import annotations

import os
from pathlib import Path

# Python imports a module of this name at every start, before anything else, where it finds one.
_SITECUSTOMIZE = """\
import datetime
import time

_SHIFT_S = {shift_s!r}
_time, _time_ns, _clock_gettime, _gmtime, _localtime = (
    time.time, time.time_ns, time.clock_gettime, time.gmtime, time.localtime
)
_real = datetime.datetime


class _Meta(type(_real)):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _real)

    def __subclasscheck__(cls, subclass):
        return issubclass(subclass, _real)


class _Shifted(_real, metaclass=_Meta):
    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds=_SHIFT_S)

    @classmethod
    def utcnow(cls):
        return _real.utcnow() + datetime.timedelta(seconds=_SHIFT_S)


time.time = lambda: _time() + _SHIFT_S
time.time_ns = lambda: _time_ns() + int(_SHIFT_S * 1_000_000_000)
time.clock_gettime = lambda which: _clock_gettime(which) + (_SHIFT_S if which == time.CLOCK_REALTIME else 0)
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
datetime.datetime = _Shifted
"""


def clock_off_by(seconds: float, folder: Path) -> dict[str, str]:
    """The environment of a Python process whose clocks go ahead by so many seconds, or behind where negative.

    ``folder`` is made for it.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(shift_s=seconds))
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path))}
