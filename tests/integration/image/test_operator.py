"""The operator's commands: what they change holds at once, ends by itself, is recorded, and no daemon can do it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support.image import (
    GITHUB_TOKEN,
    POLICY,
    SECRET,
    Bottle,
    Bundle,
    bottle,
    bundle,
    check,
    eventually,
    run,
)

pytestmark = pytest.mark.docker

_ASKING = POLICY.replace(
    'host = "origin.test"\nprivate = true', 'host = "origin.test"\nprivate = true\non_secret = "ask"', 1
)


@pytest.fixture(scope="module")
def running(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottle]:
    """One bottle for the module; each test ends what it has approved."""
    with bottle(bundle_image, agent_image, tmp_path_factory.mktemp("stage"), _ASKING) as made:
        yield made


def operate(bundle: Bundle, *command: str, stdin: str | None = None) -> tuple[int, str]:
    """A command of the operator's, with something on its standard input."""
    if stdin is None:
        return run(bundle.container, *command)
    script = f'printf %s "$IN" | {shlex.join(command)}'
    return run(bundle.container, "sh", "-c", script, environment={"IN": stdin})


def audit(bundle: Bundle, *filters: str) -> list[dict[str, Any]]:
    """What bottle-audit tells."""
    return [json.loads(line) for line in check(bundle.container, "bottle-audit", "--json", *filters).splitlines()]


# Approvals.


def test_an_approval_holds_until_it_is_revoked(running: Bottle) -> None:
    """W10 and W21: the host is refused, allowed and refused again, and the operator's audit has both."""
    target = "https://denied.test/"
    assert running.curl(target)[0] == 403
    code, said = operate(running.bundle, "bottle-approve", "host", "denied.test", "--private", "--reason", "for a test")
    assert code == 0, said
    assert said.startswith("host denied.test until ")
    assert running.curl(target)[0] == 200
    (entry,) = json.loads(check(running.bundle.container, "bottle-approve", "list", "--json"))["approvals"]
    assert (entry["host"], entry["reason"]) == ("denied.test", "for a test")
    assert 0 < entry["until"] - entry["at"] <= 3600
    assert operate(running.bundle, "bottle-revoke", "denied.test")[0] == 0
    assert running.curl(target)[0] == 403
    verdicts = [
        (found["verdict"], found["id"], found.get("reason"))
        for found in audit(running.bundle, "--daemon", "operator")
        if found["id"] == entry["id"]
    ]
    assert verdicts == [("allowed", entry["id"], "for a test"), ("revoked", entry["id"], None)]


def test_an_approval_ends_by_itself(running: Bottle) -> None:
    """egress and pipelock judge the end themselves: nobody reloads them."""
    assert operate(running.bundle, "bottle-approve", "host", "denied.test", "--private", "--until", "2s")[0] == 0
    eventually(lambda: running.curl("https://denied.test/")[0] == 403, "the end of the approval")
    assert json.loads(check(running.bundle.container, "bottle-approve", "list", "--json"))["approvals"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("host", "*"), 1, "a wildcard has the form *.DOMAIN"),
        (("host", "a.example.com", "--methods", "TRACE"), 1, "must not be TRACE"),
        (("host", "a.example.com", "--until", "never"), 2, "must be a duration"),
        (("host", "a.example.com", "--until", "9999h"), 2, "must be from 1s to 720h"),
        (("repository", "../x", "https://a.example.com/x"), 1, "is not a repository's name"),
        (("repository", "x", "ext::sh"), 1, "an upstream is"),
        (("0123456789abcdef",), 1, "there is no question"),
        (("request", "0123456789abcdef"), 1, "there is no question"),
        ((), 2, "usage: bottle-approve"),
    ],
)
def test_what_cannot_be_approved_changes_nothing(
    running: Bottle, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found, said = operate(running.bundle, "bottle-approve", *arguments)
    assert (found, words in said) == (code, True), said
    assert "Traceback" not in said
    assert json.loads(check(running.bundle.container, "bottle-approve", "list", "--json"))["approvals"] == []


def test_what_is_revoked_has_to_be_there(running: Bottle) -> None:
    assert operate(running.bundle, "bottle-revoke", "a.example.com") == (
        1,
        "bottle-revoke: nothing is approved by the name 'a.example.com'\n",
    )


# A request that is held (W14).


def _held(running: Bottle, name: str) -> tuple[str, dict[str, Any]]:
    """A request with what looks like a secret, held: the file with what the agent gets, and what waits."""
    file = f"/tmp/{name}"
    send = (
        *("curl", "-s", "--proxy", "http://sidecars:8888", "--cacert", "/tmp/ca.pem", "-w", "\\n%{http_code}\\n"),
        *("-d", f"token={GITHUB_TOKEN}", f"https://origin.test/{name}"),
    )
    script = f"{shlex.join(send)} > {file} & echo $! > {file}.pid; wait; echo ended >> {file}"
    check(running.agent, "sh", "-c", f"({script}) > /dev/null 2>&1 &")

    def waits() -> dict[str, Any] | None:
        listed = json.loads(check(running.bundle.container, "bottle-requests", "--json"))["questions"]
        return next((each for each in listed if each["what"].get("path") == f"/{name}"), None)

    return file, dict(eventually(waits, "the request that is held"))


def _got(running: Bottle, file: str) -> str:
    return str(
        eventually(lambda: (said := check(running.agent, "cat", file)).endswith("ended\n") and said, "an answer")
    )


def test_a_held_request_goes_when_the_operator_lets_it(running: Bottle) -> None:
    file, waits = _held(running, "let-go")
    assert (waits["kind"], waits["what"]["host"], waits["what"]["pattern"]) == (
        "request",
        "origin.test",
        "github-token",
    )
    assert GITHUB_TOKEN not in json.dumps(waits)
    assert operate(running.bundle, "bottle-approve", waits["id"], "--reason", "made up")[0] == 0
    # Both proxies judge it, and the operator is asked once.
    said = _got(running, file)
    assert "\n200\n" in said
    assert GITHUB_TOKEN in said, "the origin got it whole"
    # The approval was for that one request.
    again, waits = _held(running, "let-go")
    assert operate(running.bundle, "supervise-operator", "deny", waits["id"], "not this time")[0] == 0
    assert "\n403\n" in _got(running, again)
    operate(running.bundle, "bottle-revoke", "--all")


def test_a_held_request_is_refused_in_words(running: Bottle) -> None:
    """The agent reads the words of the operator who refused its request."""
    file, waits = _held(running, "refused")
    assert operate(running.bundle, "supervise-operator", "deny", waits["id"], "not today")[0] == 0
    said = _got(running, file)
    assert "not today" in said
    assert "\n403\n" in said


def test_a_held_request_ends_with_its_client(running: Bottle) -> None:
    """A held request whose client is gone waits no more."""
    file, waits = _held(running, "gone")
    check(running.agent, "sh", "-c", f"kill -KILL $(cat {file}.pid)")
    eventually(lambda: waits["id"] not in check(running.bundle.container, "bottle-requests"), "the end of what waits")


def test_what_was_shown_is_what_is_approved(running: Bottle) -> None:
    """W21: supervise says what waits, and cannot have something else approved under the id of what was shown."""
    file, waits = _held(running, "swapped")
    shown = f"/run/bottle/state/operator/shown/{waits['id']}.json"
    # As if supervise had shown another host at first.
    check(running.bundle.container, "sed", "-i", "s/origin.test/harmless.test/g", shown)
    code, said = operate(running.bundle, "bottle-approve", waits["id"])
    assert (code, said) == (
        1,
        f"bottle-approve: {waits['id']} is not any more what was shown: look at it again (bottle-requests)\n",
    )
    # What was never shown is not approved unseen either.
    check(running.bundle.container, "rm", shown)
    code, said = operate(running.bundle, "bottle-approve", waits["id"])
    assert (code, "has not been shown yet: bottle-requests shows what waits" in said) == (1, True)
    operate(running.bundle, "supervise-operator", "deny", waits["id"])
    _got(running, file)


# The policy and the secrets.


def test_a_reload_is_done_when_every_daemon_obeys(running: Bottle) -> None:
    """W10: by stdin; a rule that is gone refuses at once, and the generation is every daemon's."""
    present = check(running.bundle.container, "cat", "/etc/bottle/policy.toml")
    without = present.replace('"*.wild.test"', '"*.other.test"')
    assert without != present
    code, said = operate(running.bundle, "bottle-reload", "-", stdin=f"{without}# changed\n")
    assert code == 0, said
    generation = said.split()[-1]
    # The real pipelock does not say which policy it obeys: its parent does.
    real = check(running.bundle.container, "cat", "/run/bottle/engine") == "pipelock\n"
    for port in (9099, 18889 if real else 8888):
        assert generation in check(running.bundle.container, "sh", "-c", _HEALTH.format(port))
    assert running.curl("https://a.wild.test/")[0] == 403
    assert check(running.bundle.container, "cat", "/run/bottle/policy.toml").endswith("# changed\n")
    code, said = operate(running.bundle, "bottle-reload", "/etc/bottle/policy.toml")
    assert code == 0, said
    assert check(running.bundle.container, "rm", "/run/bottle/policy.toml") == ""


_HEALTH = (
    "python3 -I -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:{0}/health\").read().decode())'"
)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[egress", 78, "the policy on stdin: line 1: not TOML"),
        ("egres = 1", 78, "the policy on stdin: egres: unknown key; did you mean egress?"),
        (
            '[egress]\nallow = ["a.test"]\n[[egress.credentials]]\nhost = "a.test"\nheader = "X"\nvalue_file = "/none"',
            *(78, "egress.credentials[0].value_file: /none: No such file or directory"),
        ),
    ],
)
def test_a_policy_with_faults_changes_nothing(running: Bottle, text: str, code: int, words: str) -> None:
    """A policy that cannot be obeyed changes nothing."""
    before = check(running.bundle.container, "cat", "/run/bottle/policy.json")
    found, said = operate(running.bundle, "bottle-reload", "-", stdin=text)
    assert (found, words in said) == (code, True), said
    assert check(running.bundle.container, "cat", "/run/bottle/policy.json") == before
    assert run(running.bundle.container, "test", "-e", "/run/bottle/policy.toml")[0] == 1
    assert running.curl("https://origin.test/")[0] == 200


def test_a_daemon_that_does_not_obey_is_named(running: Bottle) -> None:
    """egress, suspended, has not said that it obeys; the operator is told so, and not that all is well."""
    ctl = ("python3", "-I", "-m", "bottle_init", "ctl", "signal", "egress")
    check(running.bundle.container, *ctl, "STOP")
    try:
        code, said = operate(running.bundle, "bottle-reload")
        assert code == 1
        assert "egress" in said
    finally:
        check(running.bundle.container, *ctl, "CONT")
    running.bundle.wait_healthy()


def test_a_credential_is_replaced_without_a_new_bundle(running: Bottle) -> None:
    origin = running.origin.get_wrapped_container()
    new = "Bearer another-value"
    assert operate(running.bundle, "bottle-rotate", "token", stdin=new)[0] == 0
    assert running.curl("https://origin.test/rotated")[0] == 200
    eventually(lambda: new in origin.logs().decode(), "the new value at the origin")
    # A reload does not bring the old one back, and no value is in a log.
    assert operate(running.bundle, "bottle-reload")[0] == 0
    assert running.curl("https://origin.test/rotated-still")[0] == 200
    assert new not in running.bundle.logs
    for bad in ("two\nlines", " blank", ""):
        code, said = operate(running.bundle, "bottle-rotate", "token", stdin=bad)
        assert (code, "must be one line of printable ASCII" in said) == (78, True)
    assert operate(running.bundle, "bottle-rotate", "nothing", stdin="x")[0] == 1
    assert operate(running.bundle, "bottle-rotate", "token", stdin=SECRET)[0] == 0


_PUSH = """
set -e
rm -rf /tmp/pushed; git init -q -b "$1" /tmp/pushed; cd /tmp/pushed
printf '%s' "$2" | base64 -w 0 > file; git add file
git -c user.name=a -c user.email=a@test commit -q -m file
git push git://sidecars/demo HEAD
"""


def push(running: Bottle, branch: str, content: str) -> tuple[int, str]:
    """A push of a file that has the content in base64."""
    return run(running.agent, "sh", "-c", _PUSH, "push", branch, content)


def test_a_push_of_a_known_secret_is_refused(running: Bottle) -> None:
    """W14: git-gate knows the credentials by their hashes, which setup, a reload and a rotation bring up to date."""
    assert push(running, "clean", "nothing of interest")[0] == 0
    token = SECRET.removeprefix("Bearer ")
    code, said = push(running, "known", f"x {token}")
    assert (code, "token" in said) == (1, True), said
    assert operate(running.bundle, "bottle-rotate", "token", stdin="Bearer yet-another-value")[0] == 0
    try:
        code, said = push(running, "rotated", "x yet-another-value")
        assert (code, "token" in said) == (1, True), said
    finally:
        assert operate(running.bundle, "bottle-rotate", "token", stdin=SECRET)[0] == 0


# The audit.


def test_the_audit_is_read_in_the_order_of_time(running: Bottle) -> None:
    """As root without CAP_DAC_OVERRIDE; a filter takes what it names."""
    assert running.curl("https://denied.test/audited")[0] == 403
    assert running.curl("https://origin.test/audited")[0] == 200
    eventually(lambda: any(e.get("path") == "/audited" for e in audit(running.bundle)), "the audit's line")
    entries = audit(running.bundle)
    assert [entry["timestamp"] for entry in entries] == sorted(entry["timestamp"] for entry in entries)
    assert {"egress", "pipelock"} <= {entry["daemon"] for entry in entries}
    refused = audit(running.bundle, "--host", "denied.test", "--verdict", "refused")
    assert refused
    assert {(entry["host"], entry["verdict"]) for entry in refused} == {("denied.test", "refused")}
    assert audit(running.bundle, "--last", "1") == entries[-1:] or audit(running.bundle, "--last", "1")
    assert SECRET not in json.dumps(entries)
    for user in ("egress", "supervise", "nobody"):
        assert run(running.bundle.container, "bottle-audit", user=user)[0] == 1


def test_a_follower_sees_what_comes(running: Bottle) -> None:
    check(
        running.bundle.container, "sh", "-c", "bottle-audit --json --follow --host denied.test > /tmp/followed 2>&1 &"
    )
    assert running.curl("https://denied.test/followed")[0] == 403
    eventually(lambda: "denied.test" in check(running.bundle.container, "cat", "/tmp/followed"), "the follower's line")


# The kill switch (W16).


def test_the_kill_switch_is_told_by_the_daemons(bundle_image: str, tmp_path: Path) -> None:
    """The init's health says so as soon as the daemon has told it: its own checks come each 15 s."""
    with bundle(bundle_image, tmp_path) as started:
        started.wait_healthy()
        assert check(started.container, "bottle-kill-switch", "status") == "off\n"
        assert check(started.container, "bottle-kill-switch", "on") == "on\n"
        eventually(lambda: run(started.container, "bottle-health")[0] == 1, "an unhealthy bundle")
        assert run(started.container, "bottle-health")[1].endswith("\nkill switch on\n")
        assert json.loads(run(started.container, "bottle-health", "--json")[1])["health"] == "unhealthy"
        assert check(started.container, "bottle-kill-switch", "off") == "off\n"
        started.wait_healthy()
        assert "kill switch" not in check(started.container, "bottle-health")


# Secrets that are handed in.


def test_secrets_come_by_stdin(bundle_image: str, tmp_path: Path) -> None:
    """Secrets that come by stdin are in no file, label or log of the engine."""
    environment = {"BOTTLE_SECRETS": "stdin"}
    policy = POLICY.replace("/run/secrets/token", "/run/secrets/handed-in")
    with bundle(bundle_image, tmp_path, policy, environment=environment) as started:
        code, said = operate(started, "bottle-secrets", stdin="{}")
        assert (code, said) == (1, "bottle-secrets: still missing: handed-in\n")
        code, said = operate(started, "bottle-secrets", stdin='{"handed-in": 1}')
        assert (code, "every value has to be a string" in said) == (1, True)
        assert operate(started, "bottle-secrets", stdin=json.dumps({"handed-in": SECRET}))[0] == 0
        started.wait_healthy()
        assert SECRET in check(started.container, "cat", "/run/bottle/egress/credentials.json", user="egress")
        assert check(started.container, "stat", "-c", "%a %U", "/run/bottle/secrets").split() == ["700", "root"]
        assert SECRET not in started.logs
        assert SECRET not in json.dumps(started.docker.attrs)
        code, said = operate(started, "bottle-secrets", stdin="{}")
        assert (code, "no setup waits for secrets" in said) == (69, True)


def test_an_authority_is_handed_in(bundle_image: str, tmp_path: Path) -> None:
    """Where nothing can be copied out of the bundle, the agent has to know pipelock's authority beforehand."""
    with bundle(bundle_image, tmp_path, environment={"BOTTLE_SECRETS": "stdin"}) as started:
        made = check(started.container, "bottle-proxy", "ca", "--name", "made elsewhere")
        key, begin, rest = made.partition("-----BEGIN CERTIFICATE-----")
        secrets = {"token": SECRET, "bottle-ca.key": key, "bottle-ca.pem": begin + rest}
        assert operate(started, "bottle-secrets", stdin=json.dumps(secrets))[0] == 0
        started.wait_healthy()
        assert check(started.container, "cat", "/run/bottle/ca/pipelock-ca.pem") == begin + rest
        # What the real pipelock passes on unopened, the agent's programs hear from egress.
        real = check(started.container, "cat", "/run/bottle/engine") == "pipelock\n"
        assert (check(started.container, "cat", "/run/bottle/ca/egress-ca.pem") == begin + rest) is real


def test_a_word_that_means_nothing_is_said(bundle_image: str, tmp_path: Path) -> None:
    with bundle(bundle_image, tmp_path, environment={"BOTTLE_SECRETS": "file"}) as started:
        assert started.wait_ended() == 78
        assert """BOTTLE_SECRETS: must be "stdin" or unset, is 'file'""" in started.logs.replace('\\"', '"')


def test_run_may_have_any_mode(bundle_image: str, tmp_path: Path) -> None:
    """K2: a directory that everybody may write to (an emptyDir) is made root's alone before any daemon runs."""
    with bundle(bundle_image, tmp_path, run_mode="1777") as started:
        started.wait_healthy()
        assert check(started.container, "stat", "-c", "%a %U", "/run").split() == ["755", "root"]
        code, said = run(started.container, "sh", "-c", "mkdir /run/x /run/bottle/x", user="supervise")
        assert (code, said.count("Permission denied")) == (1, 2)
