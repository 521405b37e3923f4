#!/bin/sh
# tomli, the backport of tomllib, reads documents that tomllib refuses: configuration that works on Python 3.10 breaks on 3.11.
#
# Expected: the usual fallback reads one language. tomli's page recommends it: depend on `tomli; python_version < "3.11"`, import
#   tomllib, and where there is none, tomli. The same page calls tomllib a version of tomli.
# Seen: tomli 2.5.0 reads TOML 1.1: line breaks and a trailing comma in inline tables, \e and \xHH, times without seconds. tomllib in
#   Python 3.11, 3.12 and 3.13 reads TOML 1.0 and refuses each (3.15 is to read 1.1). tomlkit reads 1.1 too.
# Versions: tomli 2.5.0, tomlkit 0.15.2, tomllib of Python 3.11 to 3.13.
# Matters: a file that validates where it is written (a Go tool, an editor, a test matrix's oldest Python) is refused where it runs;
#   the newest interpreter is the strictest parser. Write TOML 1.0, and let checks run on tomllib itself.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q tomli==2.5.0 tomlkit==0.15.2

cat > stated <<'END'
line break in an inline table: tomllib refuses, tomli reads, tomlkit reads
trailing comma in an inline table: tomllib refuses, tomli reads, tomlkit reads
\e in a string: tomllib refuses, tomli reads, tomlkit reads
\x41 in a string: tomllib refuses, tomli reads, tomlkit reads
time without seconds: tomllib refuses, tomli reads, tomlkit reads
END

cat > try.py <<'END'
import tomllib

import tomli
import tomlkit

DOCUMENTS = {
    "line break in an inline table": "a = {x = 1,\n  y = 2}",
    "trailing comma in an inline table": "a = {x = 1,}",
    r"\e in a string": r'a = "\e[0m"',
    r"\x41 in a string": r'a = "\x41"',
    "time without seconds": "a = 07:32",
}


def verdict(library, document):
    try:
        library.loads(document)
    except ValueError:
        return "refuses"
    return "reads"


for name, document in DOCUMENTS.items():
    print(f"{name}: " + ", ".join(f"{library.__name__} {verdict(library, document)}" for library in (tomllib, tomli, tomlkit)))
END
venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
