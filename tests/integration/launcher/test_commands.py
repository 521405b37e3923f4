"""Each command of `bottle`, at a real bottle that is up: what it says, and what it does to the bottle."""

import hashlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.backend import get_bottle_backend
from launcher.demo import Answer, Internet, ask
from launcher.docker import docker
from launcher.plan import new_slug, object_name
from tests.integration.support.asking import asks
from tests.integration.support.init import eventually
from tests.integration.support.launching import DEADLINE_S, cli, finish, leftovers, slugs_of

pytestmark = [pytest.mark.docker]

ALLOWED, LATER, DENIED = "api.commands.test", "later.commands.test", "elsewhere.commands.test"
MANIFEST = """\
# What is written here is kept.
[bottles.work]
egress.upstream_ca = "{authority}"

[[bottles.work.egress.hosts]]
host = "{allowed}"
private = true

[bottles.work.credentials.key]
host = "{allowed}"
file = "{secret}"
prefix = "Bearer "

[agents.worker]
bottle = "work"
command = ["sh", "-c", "echo words of the agent; exec sleep infinity"]
headless = ["sh", "-c", "echo headless; cat $CLAUDE_BOTTLE_PROMPT; exit 3"]
git = {{ name = "Worker", email = "worker@example.com" }}
project = {{ mode = "copy", path = "{project}" }}
"""


@dataclass(frozen=True)
class Operator:
    """An operator with a home, a project, and one bottle that is up."""

    home: Path
    project: Path
    slug: str

    @property
    def agent(self) -> str:
        return object_name(self.slug, "agent")

    def ask(self, host: str, *options: str) -> Answer:
        """Let the agent ask for a page."""
        return ask(get_bottle_backend(), self.slug, f"https://{host}/", *options)

    def say(self, *command: str, code: int = 0, stdin: str | None = None) -> str:
        """What a command says, which has to end with this code."""
        argv = [sys.executable, "-m", "launcher", *command]
        env = {**os.environ, "HOME": str(self.home), "COLUMNS": "200"}
        done = subprocess.run(
            argv, env=env, input=stdin or "", capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    home = tmp_path_factory.mktemp("home")
    own, project = home / ".claude-bottle", home / "src"
    own.mkdir()
    project.mkdir()
    (project / "kept.txt").write_text("as it was\n")
    (home / "secret").write_text("the-first-value\n")
    internet = Internet(new_slug("commands"), home)
    try:
        (home / "authority.pem").write_text(internet.start((ALLOWED, LATER, DENIED)))
        places = {"authority": home / "authority.pem", "secret": home / "secret", "project": project}
        (own / "bottle.toml").write_text(MANIFEST.format(allowed=ALLOWED, **places))
        code, said = finish(cli(home, "up", "--detach", "worker"))
        assert code == 0, said
        (slug,) = slugs_of(home)
        internet.connect(object_name(slug, "sidecars"))
        yield Operator(home, project, slug)
        code, said = finish(cli(home, "down", "--all", "--discard"))
        assert (code, leftovers(slug)) == (0, []), said
    finally:
        docker("rm", "--force", internet.name, check=False)
        docker("network", "rm", internet.name, check=False)


def digest(answer: Answer) -> str:
    """What the origin saw of the credential."""
    return str(json.loads(answer.body)["credential"])


def seen(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


@dataclass
class Terminal:
    """A command on its own terminal."""

    process: "subprocess.Popen[bytes]"
    end: int
    text: str = ""

    def until(self, words: str) -> str:
        """Read until these words appear; returns all output."""
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, self.text
            if select.select([self.end], [], [], left)[0]:
                with suppress(OSError):
                    self.text += os.read(self.end, 65536).decode(errors="replace")
                    continue
                raise AssertionError(self.text)
        return self.text

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.process.kill()
        each.process.wait()
        os.close(each.end)


def on_terminal(terminals: list[Terminal], operator: Operator, *command: str) -> Terminal:
    ours, theirs = pty.openpty()
    env = {**os.environ, "HOME": str(operator.home), "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    argv = ["setsid", "--ctty", sys.executable, "-m", "launcher", *command]
    process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    terminals.append(Terminal(process, ours))
    return terminals[-1]


def how_it_is(operator: Operator) -> dict[str, Any]:
    """What `status` says of the one bottle."""
    (found,) = json.loads(operator.say("status", "--json"))
    return dict(found)


# To look.


def test_plan_makes_nothing(operator: Operator) -> None:
    """For a person, as JSON, and as command lines."""
    said = operator.say("plan", "worker")
    for words in (
        ALLOWED,
        "may be a private address",
        "Authorization",
        str(operator.project),
        "1000:1000",
        "supervise",
    ):
        assert words in said
    found = json.loads(operator.say("plan", "worker", "--json"))
    assert found["hosts"][0]["host"] == ALLOWED
    lines = operator.say("plan", "worker", "--argv").splitlines()
    assert any(line.startswith("docker network create --internal") for line in lines)
    assert "docker start bottle-worker-" in lines[-1]
    assert slugs_of(operator.home) == [operator.slug]


@pytest.mark.parametrize("command", ["status", "ps"])
def test_status_says_how_it_is(operator: Operator, command: str) -> None:
    assert re.search(rf"{operator.slug} +worker +healthy", operator.say(command))
    (found,) = json.loads(operator.say(command, "--json"))
    assert (found["slug"], found["agent"], found["state"]) == (operator.slug, "worker", "healthy")
    assert (found["engine"], found["waiting"]) == ("docker", 0)
    assert {each["role"] for each in found["containers"]} >= {"agent", "sidecars"}


def test_status_may_watch(operator: Operator, terminals: list[Terminal]) -> None:
    terminal = on_terminal(terminals, operator, "status", "--watch")
    terminal.until(operator.slug)
    terminal.type("\x03")
    assert terminal.process.wait(DEADLINE_S) == 130


def test_logs_tell_the_daemons_apart(operator: Operator) -> None:
    operator.ask(DENIED)
    said = operator.say("logs")
    assert re.search(r"^\d\d:\d\d:\d\d agent +words of the agent$", said, re.MULTILINE)
    whose = {line.split()[1] for line in said.splitlines()}
    assert {"agent", "init", "setup", "pipelock"} <= whose
    lines = [json.loads(line) for line in operator.say("logs", "worker", "--of", "pipelock", "--json").splitlines()]
    assert {line["of"] for line in lines} == {"pipelock"}


def test_logs_may_follow(operator: Operator, terminals: list[Terminal]) -> None:
    """New lines are shown as they are written."""
    terminal = on_terminal(terminals, operator, "logs", "-f", "--of", "agent")
    terminal.until("words of the agent")
    docker("exec", operator.agent, "sh", "-c", "echo said later >/proc/1/fd/1")
    terminal.until("said later")


def test_why_tells_of_one_that_is_up(operator: Operator) -> None:
    said = operator.say("why")
    assert operator.slug in said
    assert "the agent: Up" in said
    assert "words of the agent" in said
    assert json.loads(operator.say("why", "--json"))["gone"] is False


def test_audit_shows_what_was_let_through_and_refused(operator: Operator) -> None:
    operator.ask(ALLOWED)
    operator.ask(DENIED)
    found = [json.loads(line) for line in operator.say("audit", "worker", "--", "--json").splitlines()]
    verdicts = {(entry.get("host"), entry["verdict"]) for entry in found}
    assert {(ALLOWED, "allowed"), (DENIED, "refused")} <= verdicts
    assert "the-first-value" not in str(found)


def test_render_prints_what_there_is(operator: Operator) -> None:
    assert "\n  sidecars:\n" in operator.say("render", "worker")
    policy = operator.say("render", "worker", "--policy")
    assert ALLOWED in policy
    assert "/run/secrets/key" in policy
    assert json.loads(operator.say("render", "--schema"))["title"] == "A bottle's manifest"


@pytest.mark.parametrize("variable", ["complete_bash", "complete_zsh", "complete_fish"])
def test_completion_knows_bottles(operator: Operator, variable: str) -> None:
    words = {"_BOTTLE_COMPLETE": variable, "COMP_WORDS": "bottle down wor", "COMP_CWORD": "2"}
    words |= {"_TYPER_COMPLETE_ARGS": "bottle down wor", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    env = {**os.environ, "HOME": str(operator.home), **words}
    bottle = Path(sys.executable).with_name("bottle")
    assert operator.slug in subprocess.run([bottle], env=env, capture_output=True, text=True, check=False).stdout


# Beside the agent.


def test_exec_runs_beside_the_agent(operator: Operator) -> None:
    assert operator.say("exec", "worker", "--", "sh", "-c", "id -u; pwd") == "1000\n/workspace\n"
    operator.say("exec", "worker", "--", "sh", "-c", "exit 9", code=9)


def test_shell_opens_a_shell(operator: Operator, terminals: list[Terminal]) -> None:
    terminal = on_terminal(terminals, operator, "shell", "worker")
    terminal.until("$ ")
    terminal.type("echo $((6*7))$HOME; exit 5\n")
    terminal.until("42/home/agent")
    assert terminal.process.wait(DEADLINE_S) == 5


def test_attach_shows_and_leaves_it_up(operator: Operator, terminals: list[Terminal]) -> None:
    terminal = on_terminal(terminals, operator, "attach", "worker")
    terminal.until("words of the agent")
    terminal.type("\x03")
    assert terminal.process.wait(DEADLINE_S) == 130
    assert operator.say("exec", "worker", "--", "true") == ""


def test_a_second_up_offers_the_first(operator: Operator, terminals: list[Terminal]) -> None:
    said = operator.say("up", "worker", code=1)
    assert f"bottle attach {operator.slug}" in said
    assert "--new" in said
    terminal = on_terminal(terminals, operator, "up", "worker")
    terminal.until("Attach to it?")
    terminal.type("\n")
    terminal.until("words of the agent")
    assert slugs_of(operator.home) == [operator.slug]


# What the operator decides meanwhile.


def test_allow_and_revoke_hold_at_once(operator: Operator) -> None:
    assert operator.ask(LATER).code == 403
    operator.say("allow", LATER, "--private", "--until", "1h", "--reason", "to try it")
    assert operator.ask(LATER).code == 200
    operator.say("revoke", LATER)
    assert operator.ask(LATER).code == 403
    assert "nothing is approved" in operator.say("revoke", "nothing.example", code=1)


def test_allow_may_be_kept_and_taken_back(operator: Operator) -> None:
    """In the manifest, whose comments stay, and by `reload` in the bottle."""
    manifest = operator.home / ".claude-bottle/bottle.toml"
    before = manifest.read_text()
    operator.say("allow", LATER, "--private", "--keep")
    assert manifest.read_text().startswith("# What is written here is kept.")
    assert LATER in manifest.read_text()
    operator.say("revoke", LATER, "--keep")
    assert manifest.read_text() == before
    assert operator.ask(LATER).code == 403


def test_reload_obeys_the_manifest_as_it_is(operator: Operator) -> None:
    """One with a fault changes nothing."""
    manifest = operator.home / ".claude-bottle/bottle.toml"
    before = manifest.read_text()
    try:
        manifest.write_text(before + f'[[bottles.work.egress.hosts]]\nhost = "{LATER}"\nprivate = true\n')
        operator.say("reload")
        assert operator.ask(LATER).code == 200
        manifest.write_text(before + "[bottles.work.nonsense]\n")
        assert "bottles.work.nonsense: unknown key" in operator.say("reload", code=78)
        assert operator.ask(LATER).code == 200
    finally:
        manifest.write_text(before)
        operator.say("reload")
    assert operator.ask(LATER).code == 403


def test_rotate_replaces_a_value(operator: Operator) -> None:
    """From where the manifest says, or from standard input; it is shown nowhere."""
    assert digest(operator.ask(ALLOWED)) == seen("Bearer the-first-value")
    said = operator.say("rotate", "key", "-", stdin="Bearer the-second-value\n")
    assert digest(operator.ask(ALLOWED)) == seen("Bearer the-second-value")
    (operator.home / "secret").write_text("the-third-value\n")
    said += operator.say("rotate", "key")
    assert digest(operator.ask(ALLOWED)) == seen("Bearer the-third-value")
    assert "value\n" not in said.replace("its new value\n", "")
    assert "known: key" in operator.say("rotate", "nothing", code=1)
    assert "does not belong on a command line" in operator.say("rotate", "key", "a-value", code=1)


def test_a_question_is_shown_and_answered(operator: Operator) -> None:
    assert "nothing waits" in operator.say("requests")
    asking = asks(operator.home, operator.slug, "ask_operator", question="left or right?")
    assert (asking.request["bottle"], asking.request["kind"], asking.request["text"]) == (
        operator.slug,
        "question",
        "left or right?",
    )
    assert "left or right?" in operator.say("requests", "worker")
    eventually(lambda: how_it_is(operator)["waiting"] == 1, "a question that `status` counts")
    operator.say("approve", asking.id[:6], "left")
    assert "left" in asking.answer()
    assert "nothing waits" in operator.say("requests")
    eventually(lambda: how_it_is(operator)["waiting"] == 0, "its end")


def test_a_question_is_denied(operator: Operator) -> None:
    asking = asks(operator.home, operator.slug, "ask_operator", question="may I?")
    operator.say("deny", asking.id, "not today")
    assert "not today" in asking.answer()


def test_a_host_that_the_agent_asks_for_is_approved(operator: Operator) -> None:
    """The agent's own wish changes nothing; the operator's yes does, until it is revoked."""
    asking = asks(operator.home, operator.slug, "request_host", host="docs.commands.test", reason="to read")
    assert asking.request["kind"] == "host"
    said = operator.say("approve", asking.id, "--until", "30m", "--reason", "reading is good")
    assert "docs.commands.test" in said
    assert "approved" in asking.answer()
    answer = operator.ask("docs.commands.test")
    assert "allow" not in answer.body, "the name does not resolve; no rule refuses it"
    operator.say("revoke", "docs.commands.test")


def test_an_unknown_request_is_said(operator: Operator) -> None:
    assert "nothing waits under ffff" in operator.say("approve", "ffff", code=1)
    assert "nothing waits under ffff" in operator.say("deny", "ffff", code=1)


def test_requests_may_be_followed(operator: Operator, terminals: list[Terminal]) -> None:
    terminal = on_terminal(terminals, operator, "requests", "--follow")
    asking = asks(operator.home, operator.slug, "ask_operator", question="who follows?")
    terminal.until("who follows?")
    operator.say("deny", asking.id)
    asking.answer()


def test_a_notice_is_a_command_of_the_operators(operator: Operator, terminals: list[Terminal]) -> None:
    """It gets what the agent wrote as data, never as words of a shell."""
    manifest = operator.home / ".claude-bottle/bottle.toml"
    before, told = manifest.read_text(), operator.home / "told"
    write = f'printf "%s|%s|" "$BOTTLE" "$TEXT" >>{told}; cat >>{told}; echo >>{told}'
    manifest.write_text(f"notify = ['sh', '-c', '{write}']\n" + before)
    try:
        on_terminal(terminals, operator, "notify")
        asking = asks(operator.home, operator.slug, "ask_operator", question="$(touch /tmp/never) `id`")
        deadline = time.monotonic() + DEADLINE_S
        while not (told.exists() and asking.id in told.read_text().rpartition("\n")[0]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (line,) = (line for line in told.read_text().splitlines() if asking.id in line)
        bottle, text, content = line.split("|", 2)
        assert (bottle, text) == (operator.slug, "$(touch /tmp/never) `id`")
        assert json.loads(content)["id"] == asking.id
        operator.say("deny", asking.id)
        asking.answer()
    finally:
        manifest.write_text(before)


def test_the_kill_switch_lets_nothing_out(operator: Operator) -> None:
    operator.say("kill-switch", "on", "worker")
    try:
        assert operator.ask(ALLOWED).code in (403, 503)
        assert "on" in operator.say("kill-switch", "status")
        assert how_it_is(operator)["state"] == "kill switch on"
    finally:
        operator.say("kill-switch", "off")
    assert operator.ask(ALLOWED).code == 200
    eventually(lambda: how_it_is(operator)["state"] == "healthy", "the next good check")
    assert "on, off or status" in operator.say("kill-switch", "maybe", code=1)


# Work.


def test_what_was_changed_comes_home_as_a_patch(operator: Operator) -> None:
    change = "cd /workspace; echo changed >kept.txt; printf 'a\\0b' >new.bin; chmod +x new.bin; mkdir d; echo x >d/y"
    operator.say("exec", "worker", "--", "sh", "-c", change)
    patch = operator.say("diff", "worker")
    assert "+changed" in patch
    (operator.project / "kept.txt").write_text("changed at home too\n")
    assert "does not fit" in operator.say("apply", "worker", "--yes", code=1)
    assert not (operator.project / "d").exists(), "all of a patch, or nothing"
    (operator.project / "kept.txt").write_text("as it was\n")
    operator.say("apply", "worker", "--yes")
    assert (operator.project / "kept.txt").read_text() == "changed\n"
    assert (operator.project / "new.bin").read_bytes() == b"a\0b"
    assert (operator.project / "new.bin").stat().st_mode & 0o111
    assert (operator.project / "d/y").read_text() == "x\n"


def test_a_home_is_kept_and_gone_on_with(operator: Operator) -> None:
    operator.say(
        "exec", "worker", "--", "sh", "-c", "mkdir ~/notes; echo remembered >~/notes/one; chmod 600 ~/notes/one"
    )
    operator.say("commit", "worker", "for-later")
    assert "nothing was kept as 'never'" in operator.say("resume", "never", code=1)
    operator.say("resume", "for-later", "--detach")
    (other,) = (slug for slug in slugs_of(operator.home) if slug != operator.slug)
    try:
        look = "cat ~/notes/one; stat -c '%U %a' ~/notes/one"
        assert operator.say("exec", other, "--", "sh", "-c", look) == "remembered\nagent 600\n"
    finally:
        operator.say("down", other, "--discard")


# Bottles of their own.


def test_run_ends_with_the_commands_code(operator: Operator) -> None:
    said = operator.say("run", "worker", "--", "sh", "-c", "cat kept.txt; exit 4", code=4)
    assert "as it was" in said or "changed" in said
    assert slugs_of(operator.home) == [operator.slug]
    assert "no command was given" in operator.say("run", "worker", code=1)


def test_headless_takes_the_prompt(operator: Operator) -> None:
    said = operator.say("up", "worker", "--new", "--headless", "--prompt", "count to three", "--quiet", code=3)
    assert said == "headless\ncount to three"
    assert "needs a prompt" in operator.say("up", "worker", "--new", "--headless", code=1)


def test_one_that_is_gone_is_remembered(operator: Operator) -> None:
    """Its logs, its end, and the work that was nowhere else."""
    change = "echo made by the agent >made.txt; git init -q ~/repo; cd ~/repo; echo x >y; exit 7"
    said = operator.say("run", "worker", "--", "sh", "-c", change, code=7)
    gone = re.search(r"worker-[0-9a-f]{6}", said)
    assert gone is not None
    slug = gone[0]
    assert leftovers(slug) == []
    assert "not pushed" in said
    assert "the agent ended with 7" in operator.say("why", slug)
    assert "egress" in operator.say("logs", slug)
    assert "+made by the agent" in operator.say("diff", slug)
    operator.say("apply", slug, "--yes", "--to", str(operator.project))
    assert (operator.project / "made.txt").exists()


def test_down_keeps_work_unless_told(operator: Operator) -> None:
    operator.say("up", "worker", "--new", "--detach")
    (other,) = (slug for slug in slugs_of(operator.home) if slug != operator.slug)
    operator.say("exec", other, "--", "sh", "-c", "echo more >more.txt")
    assert "bottle apply" in operator.say("down", other)
    assert leftovers(other) == []
    assert "+more" in operator.say("diff", other)


@pytest.mark.slow
def test_doctor_tries_each_wall(operator: Operator) -> None:
    found = json.loads(operator.say("doctor", "--json"))
    assert {each["about"] for each in found} >= {"engine", "gate", "W1", "W2", "W3", "W4", "W5"}
    assert [each for each in found if not each["good"]] == []
