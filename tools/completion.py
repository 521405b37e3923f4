"""Shell completion for bash, zsh and fish, from the rows of `cli/options.py`.

`python -m tools.completion` writes the files of share/, which a wheel installs where the shells look for them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bottle_init.cli.options import COMMANDS, CTL, ONE, OPTIONS, RUN, VERBS
from bottle_init.cli.usage import plain
from bottle_init.convert.sources import KINDS as SOURCES
from bottle_init.core.policies import POLICIES
from bottle_init.words import signames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.cli.options import Command

SHARE = Path(__file__).parents[1] / "share"

VALUES = {"POLICY": tuple(POLICIES), "SIG": tuple(signames.names()), "KIND": SOURCES}
"""Values that can be listed, by what the help calls them."""

PATHS = ("FILE", "ADDR")
"""Values that are paths, by the same."""

KINDS = {"NAME": "children", "SIGNAL": "signals", "FILE": "files"}
"""What completes a word of a command or verb, by the same."""

CHILDREN = "bottle-init status 2>/dev/null | awk 'NR > 2 { print $1 }'"
"""Prints the names of a running init's children: the first column of its table, below two lines of heads."""


def words_of(row: Command) -> list[str]:
    """What completes each word of a command or verb, in their order; "" for what can't be."""
    return [KINDS.get(word.strip("[].").partition("=")[0], "") for word in row.words.split()]


def goes_on(row: Command) -> bool:
    """Whether the last word of a command or verb may come several times."""
    return "..." in row.words


def lines_with_words() -> Iterator[tuple[str, str, Command]]:
    """`(command, verb, row)` of each command, and of each verb of `ctl`."""
    for name, row in COMMANDS.items():
        if name != CTL:
            yield name, "", row
    for verb, row in VERBS.items():
        yield CTL, verb, row


def options_of(command: str) -> list[str]:
    """The options of a command; where there is none yet, those of a bundle and of one command."""
    owners = {RUN, ONE} if command == RUN else {command}
    return [name for name, option in OPTIONS.items() if owners & {*option.commands}]


def short(markdown: str) -> str:
    """The first part of what the help says, for one line beside the word, with no quote that a shell would take."""
    return plain(markdown).partition(";")[0].partition(": ")[0].replace("'", "\u2019").replace('"', "")


# bash.

BASH = r"""# bash completion for bottle-init. Made by `make docs` from bottle_init/cli/options.py.

_bottle_init() {
    local cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]} command= verb= place=0 i
    COMPREPLY=()
    # Bash makes three words of --option=VALUE, because = is in COMP_WORDBREAKS.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --)
                local kind=-f
                ((i == COMP_CWORD - 1)) && kind=-c
                COMPREPLY=($(compgen $kind -- "$cur"))
                return ;;
            @TAKERS@)
                [[ ${COMP_WORDS[i+1]} == = ]] && ((i++))
                ((i++)) ;;
            -* | =) ;;
            *)
                if [[ -z $command ]]; then command=${COMP_WORDS[i]}
                elif [[ $command == ctl && -z $verb ]]; then verb=${COMP_WORDS[i]}
                else ((place++))
                fi ;;
        esac
    done
    case $option in
@VALUES@
    esac
    if [[ $cur == -* ]]; then
        case $command in
@OPTIONS@
        esac
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        return
    fi
    case $command:$verb:$place in
        ::0) COMPREPLY=($(compgen -W '@COMMANDS@' -- "$cur")) ;;
        ctl::0) COMPREPLY=($(compgen -W '@VERBS@' -- "$cur")) ;;
@WORDS@
    esac
}
complete -F _bottle_init bottle-init
"""


def bash() -> str:
    """The function for bash, which doesn't need the package bash-completion."""
    listed = {kind: f"($(compgen -W '{' '.join(words)}' -- \"$cur\"))" for kind, words in VALUES.items()}
    listed |= dict.fromkeys(PATHS, '($(compgen -f -- "$cur"))')
    found = {
        "children": f'($(compgen -W "$({CHILDREN})" -- "$cur"))',
        "signals": listed["SIG"],
        "files": listed["FILE"],
    }
    values = [
        f"        {name}) COMPREPLY={listed.get(option.value, '()')}; return ;;"
        for name, option in OPTIONS.items()
        if option.needs_value()
    ]
    every = {command: " ".join(_bash_options(command)) for command in ("", *COMMANDS)}
    options = [
        f"            {command or repr('')}) COMPREPLY=($(compgen -W '{own}' -- \"$cur\")) ;;"
        for command, own in every.items()
    ]
    words = [
        f"        {command}:{verb}:{'*' if goes_on(row) else place}) COMPREPLY={found[kind]} ;;"
        for command, verb, row in lines_with_words()
        for place, kind in enumerate(words_of(row))
        if kind
    ]
    return filled(
        BASH,
        TAKERS=" | ".join(name for name, option in OPTIONS.items() if option.needs_value()),
        VALUES="\n".join(values),
        OPTIONS="\n".join(options),
        COMMANDS=" ".join(COMMANDS),
        VERBS=" ".join(VERBS),
        WORDS="\n".join(words),
    )


def _bash_options(command: str) -> list[str]:
    own = [f"{name}=" if OPTIONS[name].needs_value() else name for name in options_of(command or RUN)]
    return own if command else [*own, "--help", "--version"]


# zsh.

ZSH = r"""#compdef bottle-init
# zsh completion for bottle-init. Made by `make docs` from bottle_init/cli/options.py.

local cur=$words[CURRENT] option=$words[CURRENT-1] command= verb= place=0 i=2
local -a found

while (( i < CURRENT )); do
    case $words[i] in
        --)
            shift $i words
            (( CURRENT -= i ))
            _normal
            return ;;
        @TAKERS@) (( i++ )) ;;
        -*) ;;
        *)
            if [[ -z $command ]]; then command=$words[i]
            elif [[ $command == ctl && -z $verb ]]; then verb=$words[i]
            else (( place++ ))
            fi ;;
    esac
    (( i++ ))
done

if [[ $cur == --*=* ]]; then
    option=${cur%%=*}
    compset -P '*='
fi
case $option in
@VALUES@
esac

if [[ $cur == -* ]]; then
    case $command in
@OPTIONS@
    esac
    _describe option found
    return
fi

case $command:$verb:$place in
    ::0)
        found=(
@COMMANDS@
        )
        _describe command found ;;
    ctl::0)
        found=(
@VERBS@
        )
        _describe verb found ;;
@WORDS@
esac
"""


def zsh() -> str:
    """The function for zsh, as a file of its `fpath`."""
    listed = {kind: f"compadd {' '.join(words)}" for kind, words in VALUES.items()}
    listed |= dict.fromkeys(PATHS, "_files")
    done = {"children": f'compadd ${{(f)"$({CHILDREN})"}}', "signals": listed["SIG"], "files": "_files"}
    values = [
        f"    {name}) {listed.get(option.value, ':')}; return ;;"
        for name, option in OPTIONS.items()
        if option.needs_value()
    ]
    options = []
    for command in ("", *COMMANDS):
        told = [f"'{name}:{short(OPTIONS[name].sentence)}'" for name in options_of(command or RUN)]
        if not command:
            told += ["'--help:print the command line'", "'--version:print the version'"]
        options.append(f"        {command or repr('')}) found=({' '.join(told)}) ;;")
    words = [
        f"    {command}:{verb}:{'*' if goes_on(row) else place}) {done[kind]} ;;"
        for command, verb, row in lines_with_words()
        for place, kind in enumerate(words_of(row))
        if kind
    ]
    return filled(
        ZSH,
        TAKERS="|".join(name for name, option in OPTIONS.items() if option.needs_value()),
        VALUES="\n".join(values),
        OPTIONS="\n".join(options),
        COMMANDS="\n".join(f"            '{name}:{short(row.sentence)}'" for name, row in COMMANDS.items()),
        VERBS="\n".join(f"            '{name}:{short(row.sentence)}'" for name, row in VERBS.items()),
        WORDS="\n".join(words),
    )


# fish.

FISH_HEAD = """# fish completion for bottle-init. Made by `make docs` from bottle_init/cli/options.py.

complete -c bottle-init -f
"""


def fish() -> str:
    """One line for each thing that can be completed."""
    none = f"not __fish_seen_subcommand_from {' '.join(COMMANDS)}"
    no_verb = f"__fish_seen_subcommand_from {CTL}; and not __fish_seen_subcommand_from {' '.join(VERBS)}"
    lines = [_fish(none, f"-a {name}", row.sentence) for name, row in COMMANDS.items()]
    lines += [_fish(no_verb, f"-a {name}", row.sentence) for name, row in VERBS.items()]
    done = {"children": f'-a "({CHILDREN.replace("$", chr(92) + "$")})"', "files": "-F"}
    done["signals"] = f'-a "{" ".join(VALUES["SIG"])}"'
    for command, verb, row in lines_with_words():
        seen = f"__fish_seen_subcommand_from {command}"
        seen += f"; and __fish_seen_subcommand_from {verb}" if verb else ""
        lines += [_fish(seen, done[kind]) for kind in words_of(row) if kind]
    for name, option in OPTIONS.items():
        taken = ""
        if option.needs_value():
            taken = f' -x -a "{" ".join(VALUES[option.value])}"' if option.value in VALUES else " -x"
            taken = " -r -F" if option.value in PATHS else taken
        for seen in _fish_owners(option.commands, none):
            lines.append(_fish(seen, f"-l {name[2:]}{taken}", option.sentence))
    lines += [
        _fish(none, "-s h -l help", "print the command line"),
        _fish(none, "-s V -l version", "print the version"),
    ]
    return FISH_HEAD + "\n".join(lines) + "\n"


def _fish(condition: str, what: str, sentence: str = "") -> str:
    told = f" -d '{short(sentence)}'" if sentence else ""
    return f"complete -c bottle-init -n '{condition}' {what}{told}"


def _fish_owners(commands: tuple[str, ...], none: str) -> Iterator[str]:
    if {RUN, ONE} & {*commands}:
        yield none
    named = " ".join(command for command in commands if command not in (RUN, ONE))
    if named:
        yield f"__fish_seen_subcommand_from {named}"


def filled(template: str, **parts: str) -> str:
    """The template with each `@NAME@` replaced."""
    for name, part in parts.items():
        template = template.replace(f"@{name}@", part)
    return template


def drawn() -> dict[Path, str]:
    """Every file that is made here, and what is to be in it."""
    return {
        SHARE / "bash-completion/completions/bottle-init": bash(),
        SHARE / "zsh/site-functions/_bottle-init": zsh(),
        SHARE / "fish/vendor_completions.d/bottle-init.fish": fish(),
    }


def main() -> int:
    """Write the files."""
    for path, text in drawn().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
