"""The engine that a test of the walls runs on.

`@pytest.mark.not_on("swarm", …, wall="W1", why="…")` is a wall that cannot stand there, which the backend says too
(`lost`); without `wall` the test asks for something that this engine has no place for. The table of docs/engines.md is
drawn from these marks (`tools/engines_page.py`).
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.support.engines import Engine, NotHad, chosen, running


@pytest.fixture(scope="module", params=chosen())
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Each engine of this run."""
    with ExitStack() as stack:
        try:
            there = stack.enter_context(running(request.param, tmp_path_factory.mktemp(request.param)))
        except NotHad as error:
            pytest.skip(f"{request.param} cannot be had here: {error}")
        yield there


@pytest.fixture(autouse=True)
def can_stand(request: pytest.FixtureRequest) -> None:
    """Skips a test whose wall cannot stand on its engine, or that has no place there."""
    if "engine" not in request.fixturenames:
        return
    name = request.getfixturevalue("engine").name
    for mark in request.node.iter_markers("not_on"):
        if name in mark.args:
            wall = mark.kwargs.get("wall")
            pytest.skip(f"{wall} cannot stand on {name}: {mark.kwargs['why']}" if wall else mark.kwargs["why"])
