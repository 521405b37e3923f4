"""`python -m bottle_init` from outside: what it prints, and the code that it exits with."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import bottle_init
from bottle_init.bundle.source import BundleInvalid
from bottle_init.cli import asking, main, mishap
from bottle_init.cli.options import VERSION, Options

BUNDLE = """
[bundle]
stop_timeout = "12s"
[oneshots.certs]
command = ["sh"]
timeout = "1m"
[daemons.egress]
command = ["sh"]
after = ["certs"]
ready = { tcp = 9099, timeout = "20s" }
on_unhealthy = "stop"
[daemons.gate]
command = ["sh"]
after = ["certs"]
ready = { http = "http://[::1]:1/x" }
stop_delay = "9s"
[daemons.proxy]
command = ["sh"]
after = ["egress", "gate"]
ready = { notify = true }
on_unhealthy = "restart"
backoff = { limit = "100ms" }
[jobs.tests]
command = ["sh"]
after = ["proxy"]
"""

START_ORDER = """\
{file}: valid: 1 oneshot, 3 daemons, 1 job; policy exit-on-child-death

start order:
  1.  certs   oneshot  at once             ready once it has succeeded, within 1m
  2.  egress  daemon   after certs         ready by tcp localhost:9099, within 20s
      gate    daemon   after certs         ready by http://[::1]:1/x, within 30s
  3.  proxy   daemon   after egress, gate  ready by NOTIFY_SOCKET, within 30s
  4.  tests   job      after proxy         ready once executed
stop order: the reverse, all within 12s
note: bundle.stop_timeout: `docker stop` kills after 10 s unless told otherwise (--timeout, stop_grace_period)
note: daemons.egress.on_unhealthy: nothing checks this daemon's health
note: daemons.gate: its stop may take 14s, but the bundle's ends earlier
note: daemons.proxy.backoff: initial is above limit, so that every pause is 100ms
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.toml"
    path.write_text(BUNDLE)
    return path


def run(*argv: str | Path, stdin: str = "", environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command line."""
    command = [sys.executable, "-m", "bottle_init", *argv]
    root = Path(bottle_init.__file__).parents[1]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, input=stdin, cwd=root, env=environ or {}
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_check_prints_the_start_order(file: Path) -> None:
    """`check` prints the start order and notes what may not be meant."""
    assert run("check", file) == (0, START_ORDER.format(file=file), "")


def test_check_reads_standard_input() -> None:
    assert run("check", "-", stdin=BUNDLE) == (0, START_ORDER.format(file="standard input"), "")


def test_check_honours_what_a_run_would(file: Path) -> None:
    code, out, _ = run("--config", file, "check", "--only=egress", "--policy=restart")
    assert code == 0
    assert out.startswith(f"{file}: valid: 1 oneshot, 1 daemon; policy restart\n")
    assert "gate" not in out
    by_variable = run("check", environ={"BOTTLE_INIT_CONFIG": str(file), "BOTTLE_INIT_ONLY": "egress"})
    assert by_variable[1].startswith(f"{file}: valid: 1 oneshot, 1 daemon; policy exit-on-child-death\n")


def test_the_file_can_name_a_variable_that_chooses(file: Path) -> None:
    """`--only` holds over $BOTTLE_INIT_ONLY, and that over the variable that `only_from` names."""
    file.write_text(BUNDLE.replace("[bundle]", '[bundle]\nonly_from = "MY_DAEMONS"'))

    def chosen(*argv: str, **environ: str) -> set[str]:
        told = run("check", file, *argv, environ=environ)[1]
        return {name for name in ("egress", "gate", "proxy", "tests") if f" {name} " in told}

    assert chosen(MY_DAEMONS="egress") == {"egress"}
    assert chosen(MY_DAEMONS=" , ") == chosen() == {"egress", "gate", "proxy", "tests"}
    assert chosen(MY_DAEMONS="egress", BOTTLE_INIT_ONLY="gate") == {"gate"}
    assert chosen("--only=egress", MY_DAEMONS="gate", BOTTLE_INIT_ONLY="gate") == {"egress"}
    assert chosen(BOTTLE_INIT_ONLY="", MY_DAEMONS="egress") == {"egress"}
    code, _, err = run("check", file, environ={"MY_DAEMONS": "nobody"})
    assert (code, err.splitlines()[0]) == (78, f"bottle-init: {file} ($MY_DAEMONS): not a valid bundle (1 fault)")


def test_the_stop_timeout_of_a_start(file: Path) -> None:
    """`--stop-timeout` holds over its variable, and that over the file."""
    deadline = "stop order: the reverse, all within {}\n".format
    assert deadline("7s") in run("check", file, environ={"BOTTLE_INIT_STOP_TIMEOUT": "7s"})[1]
    assert deadline("6s") in run("check", file, "--stop-timeout=6", environ={"BOTTLE_INIT_STOP_TIMEOUT": "7s"})[1]
    assert deadline("12s") in run("check", file, environ={"BOTTLE_INIT_STOP_TIMEOUT": ""})[1]
    assert run("check", "--compile", "--stop-timeout=6", file)[0] == 2
    assert run("check", "--compile", file, environ={"BOTTLE_INIT_STOP_TIMEOUT": "7s"})[0] == 0


NOTED = """
include = ["nothing.d/*.toml"]
[variables]
PORT = "80"
TOKEN = { required = true }
[oneshots.setup]
command = ["sh"]
[daemons.web]
command = ["no-such-program", "--port=${PROT}", "${OTHER}"]
override = true
cwd = "/no-such-directory"
env_files = ["/no-such-file"]
ready = { exec = ["/no/such/probe"] }
[daemons.late]
command = ["sh", "-c", "echo ${HOME} ${PROT} $${OTHER}"]
after = ["setup"]
user = "no-such-user"
[jobs.a]
command = ["sh"]
env = { K = "${NAME}", L = "${TOKEN}" }
[jobs.b]
command = ["sh"]
"""

NOTES = [
    "variables.TOKEN: is required: a start needs TOKEN in its environment",
    'include: no file matches "nothing.d/*.toml"',
    "daemons.web: has override = true, and there is nothing before it to override",
    "daemons.web.command[1]: ${PROT} stays as it is written: [variables] does not declare PROT; did you mean PORT?",
    "daemons.web.command[2]: ${OTHER} stays as it is written: [variables] does not declare OTHER",
    "daemons.late.command[2]: ${PROT} stays as it is written: [variables] does not declare PROT; did you mean PORT?",
    "jobs.a.env.K: ${NAME} stays as it is written: [variables] does not declare NAME",
    "jobs: the bundle ends with the first of a and b that ends, and stops the others",
    'daemons.web.cwd: there is no directory "/no-such-directory" here',
    'daemons.web.env_files[0]: there is no file "/no-such-file" here',
    'daemons.web.command[0]: there is no program "no-such-program" here',
    'daemons.web.ready.exec[0]: there is no program "/no/such/probe" here',
    'daemons.late.user: there is no user "no-such-user" here, unless a oneshot makes it',
]


def test_check_notes_what_may_not_be_meant(file: Path) -> None:
    """With `--compile` as well."""
    file.write_text(NOTED)
    code, out, err = run("check", file)
    assert (code, err) == (0, "")
    notes = [line.removeprefix("note: ") for line in out.splitlines() if line.startswith("note: ")]
    assert [note for note in notes if "CAP_KILL" not in note] == NOTES
    code, out, err = run("check", "--compile", file)
    assert (code, out, err) == (0, "\n".join([f"{file}c", *(f"note: {note}" for note in notes), ""]), "")
    assert run("--config", file)[0] == 78, "a start needs the required variable"


@pytest.mark.skipif(os.getuid() != 0, reason="only root has the capability to lose")
def test_check_notes_users_that_could_not_be_signalled(file: Path) -> None:
    file.write_text('[daemons.a]\ncommand = ["sh"]\nuser = "nobody"\n[daemons.b]\ncommand = ["sh"]\nuser = "root"\n')
    without = "import os, sys; from bottle_init.linux.sys import libc; libc.drop_capabilities(['kill'])\n"
    code = f"{without}from bottle_init.cli.main import main; sys.exit(main(['check', sys.argv[1]]))"
    root = Path(bottle_init.__file__).parents[1]
    told = subprocess.run(
        [sys.executable, "-c", code, file], check=True, capture_output=True, text=True, cwd=root
    ).stdout
    assert "note: daemons.a.user: the init lacks CAP_KILL" in told
    assert "daemons.b" not in told
    assert "CAP_KILL" not in run("check", file)[1]


def test_check_prints_the_shipped_schema() -> None:
    """`check` prints the schema that ships with the package."""
    shipped = (Path(bottle_init.__file__).parent / "bundle/schema.json").read_text(encoding="utf-8")
    assert run("check", "--schema") == (0, shipped, "")


def test_check_compiles_beside_the_file(file: Path) -> None:
    code, out, err = run("check", "--compile", file)
    assert (code, out.partition("\n")[0], err) == (0, f"{file}c", "")
    assert Path(f"{file}c").stat().st_mode & 0o777 == 0o644
    assert run("check", "--compile", "--only=egress", file)[0] == 2
    assert run("check", "--compile", "-")[0] == 2


def test_a_failed_compilation_leaves_nothing(file: Path) -> None:
    """A compilation that cannot be written leaves nothing behind."""
    Path(f"{file}c").mkdir()
    code, out, err = run("check", "--compile", file)
    assert (code, out) == (1, "")
    assert err == f"bottle-init: {file}c: cannot be written: Is a directory\n"
    assert sorted(path.name for path in file.parent.iterdir()) == ["bundle.toml", "bundle.tomlc"]


@pytest.mark.parametrize("argv", [(), ("check",)])
def test_an_invalid_file_is_78(argv: tuple[str, ...], file: Path) -> None:
    """An invalid file is 78, with a line for each fault."""
    file.write_text(BUNDLE + "zzz = 1\nnice = true\n")
    assert run(*argv, "--config", file) == (
        78,
        "",
        (
            f"bottle-init: {file}: not a valid bundle (2 faults)\n"
            "  jobs.tests.zzz: unknown key\n"
            "  jobs.tests.nice: must be a whole number from -20 to 19, is true\n"
        ),
    )


def test_a_missing_file_is_78_and_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert run(environ={"BOTTLE_INIT_CONFIG": str(missing)}) == (
        78,
        "",
        f"bottle-init: {missing}: not a valid bundle (1 fault)\n  the file cannot be read: No such file or directory\n",
    )


TOO_LONG, NOTHING = "longer than 4 MiB", "nothing to run"


@pytest.mark.parametrize(
    ("command", "code", "of_endless", "of_fifo"),
    [
        ((), 78, TOO_LONG, NOTHING),
        (("check",), 78, TOO_LONG, NOTHING),
        (("health",), 1, "", ""),
        (("check", "-"), 78, TOO_LONG, None),
        (("convert", "FILE"), 78, TOO_LONG, "what it is cannot be told"),
        (("convert", "-"), 78, TOO_LONG, None),
        (("explain", "FILE"), 1, "is a device", "there is nothing in it"),
        (("explain", "-"), 1, "is a device", None),
    ],
    ids=lambda value: "-".join(value) or "run" if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("kind", ["endless", "fifo"])
def test_no_file_makes_a_command_wait(
    tmp_path: Path, kind: str, command: tuple[str, ...], code: int, of_endless: str, of_fifo: str | None
) -> None:
    """The defences are the limits of `reading.whole` and `explain`, and O_NONBLOCK: a FIFO without a writer is empty.

    To open a FIFO for standard input is the shell's own waiting.
    """
    said = of_endless if kind == "endless" else of_fifo
    if said is None:
        return
    path = "/dev/zero" if kind == "endless" else str(tmp_path / "fifo")
    if kind == "fifo":
        os.mkfifo(path)
    with open("/dev/zero", "rb") as endless:
        ended = subprocess.run(
            [sys.executable, "-I", "-m", "bottle_init", *(path if word == "FILE" else word for word in command)],
            env={"BOTTLE_INIT_CONFIG": path},
            stdin=endless,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
        )
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
    assert said in ended.stderr


def test_no_file_at_all_gets_a_way_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The default place is hinted at; a file that was named is not second-guessed."""
    faults = [("", "the file cannot be read: No such file or directory")]
    missing = str(tmp_path / "none.toml")
    monkeypatch.setattr(mishap, "DEFAULT_CONFIG", missing)
    assert mishap.exit_code(BundleInvalid(missing, faults)) == 78
    assert "Run another file with --config FILE, or one program with -- COMMAND;" in capfd.readouterr().err
    assert mishap.exit_code(BundleInvalid("other.toml", faults)) == 78
    assert "--config" not in capfd.readouterr().err


def test_a_choice_that_cannot_run_is_78(file: Path) -> None:
    assert run("--config", file, "--only=proxy,egress") == (
        78,
        "",
        (
            f"bottle-init: {file} (--only): not a valid bundle (1 fault)\n"
            "  proxy: runs after gate, which must then be chosen too\n"
        ),
    )


def test_a_usage_error_is_2_with_a_hint() -> None:
    assert run("--polcy=restart") == (
        2,
        "",
        "bottle-init: unknown option --polcy; did you mean --policy?\n`bottle-init --help` shows the command line.\n",
    )


def test_help_and_version() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert out.startswith("An init for containers")
    assert run("--version") == (0, f"bottle-init {bottle_init.__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help | true; exit ${PIPESTATUS[0]}", 141),
        ("--help >/dev/full", 1),
        ("--help >&-", 1),
        ("--polcy 2>&-", 2),
        ("--polcy 2>/dev/full", 2),
        ("--config /nonexistent 2>&-", 78),
        ("check --schema >&- 2>&-", 1),
    ],
)
def test_an_output_that_is_gone_gives_no_traceback(line: str, code: int) -> None:
    root = Path(bottle_init.__file__).parents[1]
    script = f"{sys.executable} -m bottle_init {line}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, cwd=root)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("problem", "code", "told"),
    [
        (RuntimeError("oops"), 70, "bottle-init: internal error; please report it"),
        (RecursionError(), 70, "bottle-init: internal error; please report it"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_whatever_happens_an_exit_code_comes_of_it(
    problem: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(_options: Options) -> int:
        raise problem

    monkeypatch.setitem(main.COMMANDS, VERSION, fail)
    assert main.main(["--version"]) == code
    err = capfd.readouterr().err
    assert told in err
    assert bool(err) == bool(told)


def test_the_version_is_the_packages() -> None:
    project = (Path(bottle_init.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{bottle_init.__version__}"\n' in project


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (None, "@bottle_init"),
        (BUNDLE, "@bottle_init"),
        ('[bundle]\ncontrol = "/run/b.sock"\n[jobs.a]\ncommand = ["a"]\n', "/run/b.sock"),
        ('[bundle]\n"c\\u006fntrol" = "@x"\n[jobs.a]\ncommand = ["a"]\n', "@x"),
        ('[bundle]\ncontrol = ""\n[jobs.a]\ncommand = ["a"]\n', ""),
        ("# out of control\n[bundle", "@bottle_init"),
    ],
)
@pytest.mark.parametrize("argv", [("health",), ("status",), ("ctl", "renew")])
def test_clients_ask_where_the_bundle_file_says(
    argv: tuple[str, ...], text: str | None, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(options: Options) -> int:
        asked.append(options.control)
        return 0

    monkeypatch.setattr(asking, argv[0], answer)
    monkeypatch.setenv("BOTTLE_INIT_CONFIG", str(tmp_path / "bundle.toml"))
    monkeypatch.delenv("BOTTLE_INIT_CONTROL", raising=False)
    if text is not None:
        (tmp_path / "bundle.toml").write_text(text)
    assert main.main(argv) == 0
    assert main.main([*argv, "--control=@o"]) == 0
    monkeypatch.setenv("BOTTLE_INIT_CONTROL", "@env")
    assert main.main(argv) == 0
    assert asked == [address, "@o", "@env"]
