"""The exit codes of the command line and of a broken init, after sysexits.h (contract 2).

The code of a bundle that has ended is the core's: see `core/verdict.py`.
"""

from __future__ import annotations

EX_OK = 0
EX_NO = 1
"""No, of a subcommand: not healthy, no running init, an order that was refused, output that could not be written."""
EX_USAGE = 2
EX_SOFTWARE = 70
EX_CONFIG = 78
