"""However a bottle ends, nothing of it is left."""

import os
import re
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from launcher.backend import get_bottle_backend
from launcher.backend.base import BottleBackend
from launcher.backend.docker import Agent, PipelockProxy, pipelock_container_name
from launcher.docker import Command, docker, foreground
from launcher.errors import LauncherError
from launcher.manifest import BottleSpec
from launcher.plan import new_slug, object_name
from tests.integration.support.launching import AGENT_IMAGE, DEADLINE_S, cli, finish, kill, leftovers, slugs_of

pytestmark = [pytest.mark.docker]

# Two of the four: less to start.
SMALL = ("pipelock", "egress")
MANIFEST = """
name = "life"
daemons = ["pipelock", "egress"]
[agent]
command = {command}
"""


@pytest.fixture
def backend() -> BottleBackend:
    return get_bottle_backend("docker")


@pytest.fixture
def stage_dir(tmp_path: Path) -> Path:
    return tmp_path / new_slug("life")


def manifest(home: Path, command: list[str], extra: str = "") -> str:
    """A manifest in an operator's home; returns its path."""
    path = home / "life.toml"
    path.write_text(MANIFEST.format(command=command) + extra)
    return str(path)


def wait_until(process: "subprocess.Popen[str]", what: str, condition: Callable[[], object]) -> None:
    """Look until something holds of a launcher that runs; the deadline is for a machine that hangs."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.05)


def slug_once_there(process: "subprocess.Popen[str]", home: Path) -> str:
    """The slug of the one bottle that this operator has, once it has files."""
    wait_until(process, "the bottle has files", lambda: slugs_of(home))
    (slug,) = slugs_of(home)
    return slug


def has(home: Path, role: str) -> Callable[[], object]:
    """Whether the operator's one bottle has an object of that role yet."""

    def look() -> object:
        return [each for slug in slugs_of(home) for each in leftovers(slug) if named(each, object_name(slug, role))]

    return look


def is_running(container: str) -> bool:
    """Whether there is such a container and it runs."""
    state = docker("container", "inspect", "--format", "{{.State.Running}}", container, check=False)
    return state.stdout.strip() == "true"


def has_ended(container: str) -> bool:
    """Whether a container runs no more."""
    return not is_running(container)


def named(object_id: str, name: str) -> bool:
    """Whether the object of that id has that name."""
    return docker("inspect", "--format", "{{.Name}}", object_id, check=False).stdout.strip().lstrip("/") == name


def test_up_shows_the_agent_and_ends_with_its_code(tmp_path: Path) -> None:
    process = cli(tmp_path, "up", manifest(tmp_path, ["sh", "-c", "echo words of the agent; exit 7"]))
    slug = slug_once_there(process, tmp_path)
    code, said = finish(process)
    assert code == 7
    assert "words of the agent" in said
    assert "sidecars ended with 0" in said
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_what_is_done_does_not_hang_on_who_reads_of_it(tmp_path: Path) -> None:
    """`up | head -2` is gone before the agent's first word; the agent lives its life all the same."""
    talkative = ["sh", "-c", "for i in 1 2 3; do sleep 1; echo words; done; exit 7"]
    with cli(tmp_path, "up", manifest(tmp_path, talkative)) as process:
        assert process.stdout
        assert "is healthy" in process.stdout.readline()
        assert "runs" in process.stdout.readline()
        process.stdout.close()
        slug = slug_once_there(process, tmp_path)
        assert process.wait(timeout=DEADLINE_S) == 7
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_down_takes_everything_and_may_be_said_twice(tmp_path: Path) -> None:
    code, said = finish(cli(tmp_path, "up", "--detach", manifest(tmp_path, ["sleep", "infinity"])))
    assert code == 0, said
    (slug,) = slugs_of(tmp_path)
    assert len(leftovers(slug)) >= 4
    code, status = finish(cli(tmp_path, "status"))
    assert (code, status.count(slug)) == (0, 1), status
    for last_line in (f"{slug} is down\n", f"there is no bottle {slug}\n"):
        code, said = finish(cli(tmp_path, "down", slug))
        assert (code, said.endswith(last_line)) == (0, True), said
        assert leftovers(slug) == slugs_of(tmp_path) == []


def test_stop_is_idempotent(backend: BottleBackend, stage_dir: Path) -> None:
    """`stop` takes what `launch` returned, and may be called again."""
    plan = backend.prepare(BottleSpec("life", daemons=SMALL, slug=stage_dir.name), stage_dir)
    name = backend.launch(plan)
    assert is_running(name)
    for _ in range(2):
        backend.stop(name)
        assert leftovers(plan.slug) == []
        assert not stage_dir.exists()
    backend.stop("bottle-never-was-agent")


def test_parts_start_by_plans_and_stop_by_names(backend: BottleBackend, stage_dir: Path) -> None:
    """By themselves, on networks that somebody else has made: nothing but these is left. Defence: `stop_with_volumes`,
    and what `Agent.start` removes at its end.
    """
    plan = backend.prepare(BottleSpec("life", daemons=SMALL, slug=stage_dir.name), stage_dir)
    networks = {which: f"{plan.slug}-{which}-of-a-test" for which in ("internal", "egress")}
    docker("network", "create", "--internal", networks["internal"])
    docker("network", "create", networks["egress"])
    try:
        proxy = replace(plan.proxy, internal_network=networks["internal"], egress_network=networks["egress"])
        bundle = PipelockProxy.start(proxy)
        agent = Agent.start(replace(plan.agent, internal_network=networks["internal"]))
        assert (bundle, agent) == (pipelock_container_name(plan.slug), object_name(plan.slug, "agent"))
        assert is_running(bundle)
        for stop, name in ((Agent.stop, agent), (PipelockProxy.stop, bundle)) * 2:
            stop(name)
        assert leftovers(plan.slug) == []
    finally:
        backend.stop(plan.slug)
        docker("network", "rm", *networks.values())


def test_stop_knows_nothing_of_names(stage_dir: Path) -> None:
    """Any container, whatever it is called; its volumes stay, as they are nobody's."""
    name, volume = f"any_{stage_dir.name}", f"volume_{stage_dir.name}"
    docker("run", "--detach", "--name", name, "--volume", f"{volume}:/v", "--entrypoint", "sleep", AGENT_IMAGE, "1h")
    try:
        for _ in range(2):
            PipelockProxy.stop(name)
            assert docker("container", "inspect", name, check=False).code == 1
        assert docker("volume", "inspect", volume).code == 0
    finally:
        docker("rm", "--force", name, check=False)
        docker("volume", "rm", volume)


@pytest.mark.parametrize("role", ["internal", "sidecars", "agent"])
def test_an_interrupt_half_way_leaves_nothing(tmp_path: Path, role: str) -> None:
    process = cli(tmp_path, "up", manifest(tmp_path, ["sleep", "infinity"]))
    slug = slug_once_there(process, tmp_path)
    wait_until(process, f"there is an object {role}", has(tmp_path, role))
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 128 + signal.SIGINT, said
    assert "Traceback" not in said
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_so_does_a_terminate_while_the_agent_runs(tmp_path: Path) -> None:
    process = cli(tmp_path, "up", manifest(tmp_path, ["sleep", "infinity"]))
    slug = slug_once_there(process, tmp_path)
    wait_until(process, "the agent runs", lambda: is_running(object_name(slug, "agent")))
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 128 + signal.SIGTERM, said
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_a_bundle_that_dies_ends_the_bottle(tmp_path: Path) -> None:
    process = cli(tmp_path, "up", manifest(tmp_path, ["sleep", "infinity"]))
    slug = slug_once_there(process, tmp_path)
    agent, bundle = object_name(slug, "agent"), object_name(slug, "sidecars")
    wait_until(process, "the agent runs", lambda: is_running(agent))
    docker("exec", "--user", "egress", bundle, "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)", check=False)
    code, said = finish(process)
    assert code == 1, said
    assert f"{bundle} ended with 137" in said
    assert leftovers(slug) == slugs_of(tmp_path) == []


@pytest.mark.parametrize("event", ["the bundle dies", "TERM"])
def test_an_agent_with_a_terminal_is_no_harder_to_end(tmp_path: Path, event: str) -> None:
    ours, terminal = os.openpty()
    try:
        settings = termios.tcgetattr(terminal)
        process = cli(tmp_path, "up", manifest(tmp_path, ["cat"], "tty = true\n"), terminal=terminal)
        slug = slug_once_there(process, tmp_path)
        wait_until(process, "the terminal is the agent's", lambda: termios.tcgetattr(terminal) != settings)
        if event == "TERM":
            process.terminate()
        else:
            docker("kill", object_name(slug, "sidecars"))
        code, said = finish(process)
        assert code == (143 if event == "TERM" else 1), said
        assert termios.tcgetattr(terminal) == settings
        assert leftovers(slug) == slugs_of(tmp_path) == []
    finally:
        os.close(ours)
        os.close(terminal)


def test_a_terminal_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    """The kernel hangs up, and nothing can be written any more."""
    ours, terminal = os.openpty()
    process = cli(tmp_path, "up", manifest(tmp_path, ["sleep", "infinity"]), terminal=terminal)
    os.close(terminal)
    slug = slug_once_there(process, tmp_path)
    wait_until(process, "the agent runs", lambda: is_running(object_name(slug, "agent")))
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    code, said = finish(process)
    assert code == 128 + signal.SIGHUP, said
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_a_killed_command_leaves_the_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that must be killed leaves the terminal as it was."""
    ours, terminal = os.openpty()
    settings = termios.tcgetattr(terminal)
    stubborn = f"trap '' TERM; stty -F {os.ttyname(terminal)} raw; exec sleep 1000"

    def look(seconds: float) -> None:
        time.sleep(seconds)
        if termios.tcgetattr(terminal) != settings:
            raise InterruptedError

    with open(terminal) as stdin, pytest.raises(InterruptedError):
        monkeypatch.setattr("sys.stdin", stdin)
        try:
            foreground(Command(("sh", "-c", stubborn)), look)
        finally:
            assert termios.tcgetattr(terminal) == settings
            os.close(ours)


def test_a_killed_launcher_leaves_what_down_finds(tmp_path: Path) -> None:
    """By the labels of its objects, without its notes."""
    process = cli(tmp_path, "up", manifest(tmp_path, ["sleep", "infinity"]))
    slug = slug_once_there(process, tmp_path)
    wait_until(process, "there is a bundle", has(tmp_path, "sidecars"))
    kill(process)
    assert leftovers(slug)
    shutil.rmtree(tmp_path / ".claude-bottle/state")
    code, said = finish(cli(tmp_path, "down", "--all"))
    assert code == 0, said
    assert leftovers(slug) == []


def test_a_bundle_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """A bundle that ends at once says why, and nothing of it is left."""
    allow_nonsense = '[egress]\nallow = ["*."]\n'
    process = cli(tmp_path, "up", manifest(tmp_path, ["true"], allow_nonsense))
    slug = slug_once_there(process, tmp_path)
    code, said = finish(process)
    assert code == 1
    assert "egress.allow[0]" in said, "the bundle's own words are shown"
    assert "Traceback" not in said
    assert leftovers(slug) == slugs_of(tmp_path) == []


def test_a_bundle_that_is_never_healthy_leaves_nothing(backend: BottleBackend, stage_dir: Path) -> None:
    plan = backend.prepare(BottleSpec("life", image=AGENT_IMAGE, slug=stage_dir.name), stage_dir)
    with pytest.raises(LauncherError, match="HEALTHCHECK"):
        backend.launch(plan)
    assert leftovers(plan.slug) == []
    assert not stage_dir.exists()


@pytest.mark.parametrize("image", ["nobody.invalid/nothing", "--help"])
def test_an_image_that_is_not_there_is_not_pulled(backend: BottleBackend, stage_dir: Path, image: str) -> None:
    plan = backend.prepare(BottleSpec("life", image=image, slug=stage_dir.name), stage_dir)
    with pytest.raises(LauncherError, match="not on this engine"):
        backend.launch(plan)
    assert leftovers(plan.slug) == []
    assert not stage_dir.exists()


def test_the_demonstration_replaces_itself(tmp_path: Path) -> None:
    """The demonstration shows what it should, and a second one replaces the first."""
    code, said = finish(cli(tmp_path, "demo"))
    assert code == 0, said
    assert re.findall(r"^.{40} (200|403|nothing) +https://", said, re.MULTILINE) == ["200", "403", "403", "nothing"]
    (first,) = slugs_of(tmp_path)
    process = cli(tmp_path, "demo")
    wait_until(process, "the second has replaced the first", lambda: slugs_of(tmp_path) not in ([first], []))
    assert leftovers(first) == []
    second = slug_once_there(process, tmp_path)
    wait_until(process, "the second has an internet", has(tmp_path, "internet"))
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 128 + signal.SIGINT, said
    assert leftovers(second) == slugs_of(tmp_path) == []


def test_two_bottles_of_one_manifest_live_side_by_side(tmp_path: Path) -> None:
    """A second one is started only with `--new`; otherwise the first is offered."""
    path = manifest(tmp_path, ["sleep", "infinity"])
    for option, expected in (("--new", 0), ("--quiet", 1), ("--new", 0)):
        code, said = finish(cli(tmp_path, "up", "--detach", option, path))
        assert code == expected, said
    one, other = slugs_of(tmp_path)
    code, said = finish(cli(tmp_path, "down"))
    assert code == 1
    assert one in said
    assert other in said, "which one is asked, not guessed"
    assert finish(cli(tmp_path, "down", one))[0] == 0
    assert leftovers(one) == []
    assert len(leftovers(other)) >= 4, "the other one is untouched"
    assert finish(cli(tmp_path, "down", "--all"))[0] == 0
    assert leftovers(other) == []


def whole(home: Path, *options: str) -> tuple["subprocess.Popen[str]", str]:
    """A launcher whose agent runs beside all four daemons, and the bottle's slug."""
    path = home / "whole.toml"
    path.write_text('[bottles.whole]\n[agents.whole]\nbottle = "whole"\ncommand = ["sleep", "infinity"]\n')
    process = cli(home, "up", *options, str(path))
    slug = slug_once_there(process, home)
    return process, slug


def wait_for(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.05)


@pytest.mark.parametrize(("dies", "follows"), [("sidecars", "agent"), ("agent", "sidecars")])
def test_agent_and_bundle_end_with_each_other(tmp_path: Path, dies: str, follows: str) -> None:
    """Without a launcher that looks. Defence: the agent's lease on its connection to supervise."""
    process, slug = whole(tmp_path, "--detach")
    code, said = finish(process)
    assert code == 0, said
    docker("kill", object_name(slug, dies))
    wait_for(f"{follows} has ended", partial(has_ended, object_name(slug, follows)))
    assert finish(cli(tmp_path, "down", slug))[0] == 0
    assert leftovers(slug) == []


def test_a_bottle_ends_with_its_killed_launcher(tmp_path: Path) -> None:
    """Defence: the bundle's lease on its standard input."""
    process, slug = whole(tmp_path)
    with process:
        assert process.stdout
        while " runs. " not in (line := process.stdout.readline()):
            assert line, finish(process)
        process.kill()
    for role in ("sidecars", "agent"):
        wait_for(f"{role} has ended", partial(has_ended, object_name(slug, role)))
    assert finish(cli(tmp_path, "prune"))[0] == 0
    assert leftovers(slug) == []
