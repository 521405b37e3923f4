"""Signals by their names, without the `signal` module: that would cost PID 1 an `enum`.

Numbers are Linux's (signal(7)), names are written with or without `SIG`, real-time ones are
`RTMIN+n` and `RTMAX-n`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

_ALIASES = ("SIGCLD", "SIGIOT", "SIGPOLL", "SIGRTMIN", "SIGRTMAX")
RTMIN: int = _signal.SIGRTMIN
RTMAX: int = _signal.SIGRTMAX


def number(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `sigterm`, `15` or `RTMIN+3`. Raises ValueError for anything else."""
    word = text.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit():
        return checked(int(word[:9]))
    if word.isascii() and word.isalnum():
        found = getattr(_signal, "SIG" + word, None)
        if found is not None:
            return int(found)
    base, sign, step = word[:5], word[5:6], word[6:]
    if (base, sign) in (("RTMIN", "+"), ("RTMAX", "-")) and step.isascii() and step.isdigit() and len(step) <= 2:
        real_time = RTMIN + int(step) if sign == "+" else RTMAX - int(step)
        if RTMIN <= real_time <= RTMAX:
            return real_time
    raise ValueError(f"there is no signal {text!r}")


def checked(signal: int) -> int:
    """The number itself, if a process can be sent it. Raises ValueError (32 and 33 are the C library's own)."""
    if not (1 <= signal < 32 or RTMIN <= signal <= RTMAX):
        raise ValueError(f"there is no signal {signal}")
    return signal


def name(signal: int) -> str:
    """`TERM` for 15, `RTMIN+3` for 37, and the number itself where it has no name."""
    if RTMIN <= signal <= RTMAX:
        return f"RTMIN+{signal - RTMIN}" if signal > RTMIN else "RTMIN"
    return next((known for known in names() if getattr(_signal, "SIG" + known) == signal), str(signal))


def names() -> list[str]:
    """The names of all signals that are not real-time ones, each once, in the order of their numbers."""
    found = [each for each in dir(_signal) if each.startswith("SIG") and each.isalnum() and each not in _ALIASES]
    return [each[3:] for each in sorted(found, key=lambda each: int(getattr(_signal, each)))]
