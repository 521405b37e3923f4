"""The files of a bottle in its stage directory, from which a backend hands them to its engine."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher import state
from launcher.agent_side import guarded, write_agent_files
from launcher.errors import LauncherError
from launcher.plan import BottlePlan, PipelockProxyPlan, new_slug
from launcher.planning import proxy_plan
from launcher.policy import policy_toml, secret_path, secret_values
from launcher.spec import BottleSpec


def prepare_proxy(spec: BottleSpec, stage_dir: Path) -> PipelockProxyPlan:
    """Write the proxy's policy into `stage_dir`, and plan the proxy: its networks stay empty.

    Raises `LauncherError` where the authority of its origins can't be read.
    """
    stage_dir = stage_dir.absolute()
    upstream_ca = None
    if spec.upstream_ca is not None:
        try:
            upstream_ca = spec.upstream_ca.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise LauncherError(f"egress.upstream_ca: {spec.upstream_ca}: {error}") from None
    plan = proxy_plan(spec, spec.slug or new_slug(spec.name), stage_dir)
    stage_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.write(plan.yaml_path, policy_toml(spec), mode=0o644)
    if upstream_ca is not None:
        state.write(plan.yaml_path.with_name("upstream-ca.pem"), upstream_ca, mode=0o644)
    return plan


@contextmanager
def staged(spec: BottleSpec, plan: BottlePlan, engine: str) -> Iterator[None]:
    """Write the files that every backend needs, those of the secrets included, and let the block write its own.

    `engine` is the name of the backend, which alone may remove these files.

    Raises `LauncherError` where one of the operator's own cannot be read; whatever is raised, no file is left.
    """
    values = secret_values(spec)
    try:
        state.create(plan.stage_dir, plan.slug, engine=engine, **spec.facts())
        prepare_proxy(spec, plan.stage_dir)
        for name, value in values.items():
            state.write(secret_path(plan.stage_dir, name), value, mode=0o600)
        write_agent_files(spec, plan.stage_dir)
        if spec.agent.project is not None and spec.agent.project.mode == "bind":
            guarded(spec.agent.project)
        yield
    except BaseException:
        state.discard(plan.stage_dir, plan.slug)
        raise


@contextmanager
def drafted(spec: BottleSpec) -> Iterator[Path]:
    """A stage directory with every file but the secrets, for as long as the block: to be rendered, and not started."""
    with tempfile.TemporaryDirectory() as directory:
        stage_dir = Path(directory) / "stage"
        prepare_proxy(spec, stage_dir)
        write_agent_files(spec, stage_dir)
        yield stage_dir
