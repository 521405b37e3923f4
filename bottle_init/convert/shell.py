"""Lines that a shell would run, as the words of a command where no shell is needed for them."""

from __future__ import annotations

import re
import shlex
from typing import Final

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OF_SHELL: Final = (
    *(
        "!",
        ".",
        ":",
        "[[",
        "alias",
        "bg",
        "break",
        "case",
        "cd",
        "continue",
        "declare",
        "eval",
        "exec",
        "exit",
        "export",
    ),
    *("fg", "for", "function", "getopts", "hash", "if", "jobs", "let", "local", "read", "readonly", "return", "set"),
    *("shift", "source", "time", "times", "trap", "type", "typeset", "ulimit", "umask", "unalias", "unset", "until"),
    *("wait", "while", "{"),
)
"""Keywords and builtins: no file has their names, or none that does the same."""


class Line:
    """What a shell would see in a line. `special`: it would change words; `several`: it is more than one command."""

    def __init__(self, text: str) -> None:
        self.special = self.several = False
        quote, before, escaped = "", " ", False
        for char in text:
            if escaped:
                escaped = False
                self.special |= char == "\n" or (quote == '"' and char in "$`")
            elif char == "\\" and quote != "'":
                escaped = True
            elif quote:
                self.special |= quote == '"' and char in "$`"
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            else:
                self._plain(char, before)
            before = char

    def _plain(self, char: str, before: str) -> None:
        if char == "&" and before in "<>":
            self.special = True
        elif char in "|&;\n()":
            self.several = True
        elif char in "<>$`*?[]~{}" or (char in "#!" and before.isspace()):
            self.special = True


def command_of(line: str) -> tuple[list[str], dict[str, str]]:
    """The command that does what a shell's line says, and the variables that the line sets for it.

    A line of more than one command stays one, for `sh -c`. One command replaces its shell, so that signals reach it.
    """
    line = line.strip()
    try:
        words = shlex.split(line)
    except ValueError:
        return ["sh", "-c", line], {}
    seen = Line(line)
    if not words or seen.several:
        return ["sh", "-c", line], {}
    if words[0] == "exec" and re.match(r"exec\s+[^\s<>-]", line):
        return command_of(line[4:])
    variables: dict[str, str] = {}
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        variables[match[1]] = match[2]
        del words[0]
    if not words or words[0] in _OF_SHELL:
        return ["sh", "-c", line], {}
    if seen.special:
        return ["sh", "-c", f"exec {'env ' if variables else ''}{line}"], {}
    return words, variables
