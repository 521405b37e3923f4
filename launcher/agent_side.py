"""What an agent finds in its container: its variables, its git configuration, its prompt and skills, its project."""

import json
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path

from launcher import state
from launcher.errors import LauncherError
from launcher.plan import (
    CA_STORE,
    GIT_CONFIG,
    GIT_URL,
    JAVA_STORE,
    JAVA_STORE_PASSWORD,
    MCP_CONFIG,
    PIPELOCK_CA_TARGET,
    PROMPT_FILE,
    PROXY_PORT,
    PROXY_URL,
    SIDECARS,
    SUPERVISE_URL,
    Bind,
    File,
)
from launcher.spec import AgentSpec, BottleSpec, Project, Repository

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY = f"{SIDECARS},localhost,127.0.0.1"
# Each names a file of all certificates to trust, which is then trusted instead of the program's own.
STORE_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE"),
    *(
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "CARGO_HTTP_CAINFO",
        "BUNDLE_SSL_CA_CERT",
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    ),
    *("NIX_SSL_CERT_FILE", "PERL_LWP_SSL_CA_FILE", "HEX_CACERTS_PATH", "NPM_CONFIG_CAFILE"),
)
# These name certificates to trust besides.
EXTRA_VARIABLES = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
# Java has its own store and its own words for a proxy. The agent's shell never splits it: no value has a blank.
JAVA_OPTIONS = " ".join((
    f"-Djavax.net.ssl.trustStore={JAVA_STORE}",
    f"-Djavax.net.ssl.trustStorePassword={JAVA_STORE_PASSWORD}",
    *(f"-D{scheme}.proxyHost={SIDECARS} -D{scheme}.proxyPort={PROXY_PORT}" for scheme in ("http", "https")),
    f"-Dhttp.nonProxyHosts={SIDECARS}|localhost|127.*",
))  # fmt: skip
# A character that may follow a repository's URL in another repository's: git's insteadOf knows prefixes alone.
GOES_ON = string.ascii_letters + string.digits + "._-"
PROMPT = "{prompt}"


def agent_env(spec: BottleSpec) -> tuple[tuple[str, str], ...]:
    """The agent's variables: the way out for everything that knows proxies, and then the manifest's own.

    Those that make the way out cannot be overridden: an agent without them has no way out at all, only riddles.
    """
    env = {"HOME": spec.agent.home, **dict(spec.agent.env)}
    if "pipelock" in spec.used_daemons:
        env |= {each: PROXY_URL for name in PROXY_VARIABLES for each in (name, name.lower())}
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), NO_PROXY)
        env |= dict.fromkeys(STORE_VARIABLES, CA_STORE)
        env |= dict.fromkeys(EXTRA_VARIABLES, PIPELOCK_CA_TARGET)
        env |= {"NODE_USE_ENV_PROXY": "1", "JAVA_TOOL_OPTIONS": JAVA_OPTIONS}
    if "supervise" in spec.used_daemons:
        env["CLAUDE_BOTTLE_SUPERVISE_URL"] = SUPERVISE_URL
    env |= {each.variable: each.placeholder for each in spec.credentials if each.variable and each.placeholder}
    if spec.agent.prompt:
        env["CLAUDE_BOTTLE_PROMPT"] = PROMPT_FILE
    return tuple((env | {"GIT_CONFIG_SYSTEM": GIT_CONFIG}).items())


def agent_command(agent: AgentSpec) -> tuple[str, ...]:
    """The command with the prompt in its place."""
    return tuple(agent.prompt if word == PROMPT else word for word in agent.command if word != PROMPT or agent.prompt)


def git_config(spec: BottleSpec) -> str:
    """The agent's system-wide git configuration: `git clone` of an upstream goes to git-gate, and its remote in the
    clone keeps the upstream's own name. Of several prefixes of a URL git takes the longest.
    """
    lines = ["[include]", "\tpath = /etc/gitconfig", "[lfs]", "\tgitprotocol = http"]
    identity = [("name", spec.agent.git_name), ("email", spec.agent.git_email)]
    if any(value for _, value in identity):
        lines += ["[user]", *(f"\t{key} = {_quoted(value)}" for key, value in identity if value)]
    instead: dict[str, str] = {}
    for repository in spec.repositories:
        for url in _names(repository):
            instead |= {f"{url}{character}": f"{url}{character}" for character in GOES_ON}
    for repository in spec.repositories:
        instead |= dict.fromkeys(_names(repository), f"{GIT_URL}/{repository.name}")
    for url, base in instead.items():
        lines += [f"[url {_quoted(base)}]", f"\tinsteadOf = {_quoted(url)}"]
    return "\n".join(lines) + "\n"


def _names(repository: Repository) -> Iterator[str]:
    """What people call a repository: with `.git` and without, and by https where its upstream is reached by ssh."""
    if repository.upstream is None:
        return
    bare = repository.upstream.removesuffix("/").removesuffix(".git")
    names = [bare]
    if bare.startswith("ssh://"):
        user_and_host, _, path = bare.removeprefix("ssh://").partition("/")
        host = user_and_host.rpartition("@")[2].partition(":")[0]
        names += [f"https://{host}/{path}", f"{user_and_host.partition(':')[0]}:{path}"]
    elif "://" not in bare and ":" in bare:
        user_and_host, _, path = bare.partition(":")
        names += [f"https://{user_and_host.rpartition('@')[2]}/{path}", f"ssh://{user_and_host}/{path}"]
    for name in names:
        yield name
        yield f"{name}.git"


def _quoted(text: str) -> str:
    """A value of git's configuration (git-config(1), "Syntax")."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def agent_files(spec: BottleSpec, stage_dir: Path, owner: tuple[int, int]) -> tuple[File, ...]:
    """Where each of the agent's files is, and where it goes."""
    skills = f"{spec.agent.home}/{spec.agent.skills_dir}"
    return (
        *(File(stage_dir / "agent" / name, target) for name, target, _ in _texts(spec)),
        *(File(skill, f"{skills}/{skill.name}", 0o644, owner) for skill in spec.agent.skills),
    )


def write_agent_files(spec: BottleSpec, stage_dir: Path) -> None:
    """Write the files that `agent_files` tells of and that are not the operator's own."""
    for name, _, text in _texts(spec):
        state.write(stage_dir / "agent" / name, text, mode=0o600)


def _texts(spec: BottleSpec) -> Iterator[tuple[str, str, str]]:
    """The name, the place and the text of each file that is made."""
    yield "gitconfig", GIT_CONFIG, git_config(spec)
    if "supervise" in spec.used_daemons:
        servers = {"mcpServers": {"supervise": {"type": "http", "url": SUPERVISE_URL}}}
        yield "mcp.json", MCP_CONFIG, json.dumps(servers, indent=1) + "\n"
    if spec.agent.prompt:
        yield "prompt", PROMPT_FILE, spec.agent.prompt


def project_binds(project: Project) -> tuple[Bind, ...]:
    """The project's directory, and over it what the operator's own git would run or obey, read-only.

    `.git` is a mount by itself, so that it can't be moved away and another one put in its place; where it is a file, as
    in a linked work tree, it is read-only.
    """
    if project.path is None:
        return ()
    binds = [Bind(project.path, project.target, read_only=False)]
    git = project.path / ".git"
    if git.is_file():
        binds.append(Bind(git, f"{project.target}/.git"))
    elif git.is_dir():
        binds.append(Bind(git, f"{project.target}/.git", read_only=False))
        obeyed = dict.fromkeys((*_obeyed(git), *_obeyed_of_submodules(project.path)))
        binds += [Bind(each, f"{project.target}/{each.relative_to(project.path)}") for each in obeyed]
    return tuple(binds)


def _obeyed(git: Path) -> Iterator[Path]:
    """What git obeys in a repository's own directory. Hooks that are not there yet could be made (`guarded`)."""
    yield from (each for each in (git / "config", git / "config.worktree") if each.exists())
    yield git / "hooks"


def _obeyed_of_submodules(root: Path) -> Iterator[Path]:
    """The same of its submodules, which `git status` looks into, and the files that say where each has it."""
    for directory, names, files in os.walk(root / ".git" / "modules"):
        module = Path(directory)
        if not {*names, *files} >= {"HEAD", "config", "objects"}:
            continue
        names[:] = ["modules"] if "modules" in names else []
        yield from _obeyed(module)
        if found := re.search(r"^\s*worktree = (.+)$", (module / "config").read_text(errors="replace"), re.MULTILINE):
            link = (module / found[1]).resolve() / ".git"
            if link.is_file() and link.is_relative_to(root):
                yield link


def guarded(project: Project) -> None:
    """Make the directories of hooks that the project has not: what is not there cannot be mounted over.

    Raises `LauncherError` where `.git` is a link, in whose place the agent could put another one.
    """
    if project.path is not None and (project.path / ".git").is_symlink():
        raise LauncherError(
            f"{project.path / '.git'} is a link, and the agent could put another one in its place",
            hint="--mode copy gives it a copy of the project",
        )
    for bind in project_binds(project):
        if bind.source.name == "hooks" and not bind.source.exists():
            bind.source.mkdir()
