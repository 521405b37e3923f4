"""One command: what a transparent init does with each signal, and with what the command leaves (contract 5).

While the command lives, every signal goes to it and nothing escalates. Once it has ended, what it
left behind is ended as a bundle's leftovers are (contract 4): TERM for all of it, SIGKILL for its
session after a child's `stop_timeout`, SIGKILL for everything at the bundle's, or at once at the
second stop signal.
"""

from __future__ import annotations

from bottle_init.core.signals import CHLD, INT, QUIT, STOP, STOP_SIGNALS, WINCH
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TSTP: Final = 20
TTIN: Final = 21
TTOU: Final = 22

JOB_CONTROL: Final = (TSTP, TTIN, TTOU)

FROM_TERMINAL: Final = (INT, QUIT, TSTP, WINCH)
"""What a terminal sends to every process of its foreground group."""

# The defaults of a bundle file, which has no say here (contract 9); `model.py` costs too much to import for them.
SESSION_KILL_MS: Final = 5_000
EVERYTHING_KILL_MS: Final = 8_000
GIVE_UP_MS: Final = 1_000


class Rules(Value):
    """The options of one command. Signals and codes are numbers.

    `rewrites` are `(source, target)` pairs, the last one for a source holds, target 0 drops;
    `mapped` are the exit codes that become 0; `single_child` takes the session of its own away;
    `stop_timeout_ms` is from the end of the lease, or of the command, to SIGKILL for everything.
    """

    rewrites: tuple[tuple[int, int], ...] = ()
    mapped: tuple[int, ...] = ()
    single_child: bool = False
    parent_death_signal: int = 0
    stop_timeout_ms: int = EVERYTHING_KILL_MS


def target_of(rules: Rules, signal: int) -> int:
    """The signal that the command gets for one that reached the init; 0 for none.

    The stop signals of job control become STOP in a session of its own: the group of a session's
    leader is orphaned, and there the kernel ignores the others (setpgid(2), "orphaned").
    """
    for source, target in reversed(rules.rewrites):
        if source == signal:
            return target
    if signal == CHLD:
        return 0
    if signal in JOB_CONTROL and not rules.single_child:
        return STOP
    return signal


def is_plain(signal: int, target: int) -> bool:
    """Whether there is nothing to `signal` but to pass it on as `target`: no stop, no sleep, nothing to reap."""
    means_more = signal == CHLD or signal in STOP_SIGNALS or signal in JOB_CONTROL or target in JOB_CONTROL
    return target != 0 and not means_more


def sleeps_too(signal: int, target: int, *, is_pid_1: bool) -> bool:
    """Whether the init stops itself after passing `signal` on as `target`, so that a shell sees the job stop.

    A stop of job control's counts as it came, whatever it was rewritten to, unless it was dropped. PID 1 never stops.
    """
    return not is_pid_1 and target != 0 and signal in JOB_CONTROL


def has_it_already(rules: Rules, signal: int, *, by_kernel: bool, same_group: bool) -> bool:
    """Whether the command got this signal when the init did: a terminal sends its own to the whole group."""
    return rules.single_child and by_kernel and same_group and signal in FROM_TERMINAL


def exit_code(rules: Rules, code: int) -> int:
    """The init's exit code for the command's (128+s for a kill by s)."""
    return 0 if code in rules.mapped else code


ASK: Final = "ask"
KILL_SESSION: Final = "kill session"
KILL_EVERYTHING: Final = "kill everything"
GIVE_UP: Final = "give up"

# Once the lease has ended, while the command lives.


def next_without_lease_ms(rules: Rules, ended_ms: int, killed_ms: int | None) -> int:
    """When the command and all below it are to be killed, after its TERM at `ended_ms`; then, when to give up on it."""
    return ended_ms + rules.stop_timeout_ms if killed_ms is None else killed_ms + GIVE_UP_MS


# What is left once the command has ended.


class Leftovers(Value):
    """How far the end of what was left behind has come.

    `stop_signals` counts those that have reached the init; all of them that came while the command
    lived were the command's business and count as one.
    """

    began_ms: int
    kill_at_ms: int
    stop_signals: int = 0


def begin(rules: Rules, now_ms: int, *, was_asked: bool, lease_ended_ms: int | None = None) -> Leftovers:
    """The command has ended, and something is left; `was_asked`: a stop signal or the lease's end had come before."""
    began_ms = now_ms if lease_ended_ms is None else lease_ended_ms
    return Leftovers(now_ms, began_ms + rules.stop_timeout_ms, int(was_asked))


def stop_again(left: Leftovers, now_ms: int) -> Leftovers:
    """A stop signal has come: the second one kills what is left at once (contract 4)."""
    count = left.stop_signals + 1
    kill_at_ms = min(left.kill_at_ms, now_ms) if count > 1 else left.kill_at_ms
    return left.replace(stop_signals=count, kill_at_ms=kill_at_ms)


def stage(left: Leftovers, now_ms: int) -> str:
    """What is to be done with what is left at `now_ms`."""
    if now_ms >= left.kill_at_ms + GIVE_UP_MS:
        return GIVE_UP
    if now_ms >= left.kill_at_ms:
        return KILL_EVERYTHING
    return KILL_SESSION if now_ms >= left.began_ms + SESSION_KILL_MS else ASK


def next_stage_ms(left: Leftovers, now_ms: int) -> int:
    """When the next stage begins."""
    times = (left.began_ms + SESSION_KILL_MS, left.kill_at_ms, left.kill_at_ms + GIVE_UP_MS)
    return min((at_ms for at_ms in times if at_ms > now_ms), default=now_ms)
