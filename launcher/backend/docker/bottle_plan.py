"""A bottle's plan on a Docker engine."""

from dataclasses import dataclass
from pathlib import Path

from launcher.plan import ADDRESS_POOL, LABEL_ROLE, LABEL_SLUG, LABEL_STAGE, BottlePlan


@dataclass(frozen=True, slots=True)
class DockerBottlePlan(BottlePlan):
    """One bottle, and where its compose file is."""

    compose_path: Path = Path("compose.yaml")
    address_pool: str = ADDRESS_POOL

    def labels(self, role: str) -> tuple[tuple[str, str], ...]:
        """The labels of a network of this bottle's; those of its containers and volumes say the same."""
        own = {LABEL_SLUG: self.slug, LABEL_ROLE: role, LABEL_STAGE: str(self.stage_dir)}
        return tuple((own | dict(self.proxy.settings.labels)).items())
