"""Manifests and images for agents that people have: `bottle init`."""

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Template:
    """A manifest and, where its agent comes from npm, an image."""

    name: str
    about: str
    package: str = ""
    command: str = ""
    version: str = ""

    @property
    def manifest(self) -> str:
        """The manifest's text."""
        text = (files("launcher.templates") / f"{self.name}.toml").read_text()
        return text.format(version=self.version)

    @property
    def dockerfile(self) -> str:
        """The image's Dockerfile; empty where the small agent's image does."""
        if not self.package:
            return ""
        text = (files("launcher.templates") / "npm.Dockerfile").read_text()
        return text.format(package=self.package, command=self.command, version=self.version)


TEMPLATES = {
    each.name: each
    for each in (
        Template("claude", "Claude Code, from npm", "@anthropic-ai/claude-code", "claude", "2.1.332"),
        Template("codex", "Codex, from npm", "@openai/codex", "codex", "0.171.0"),
        Template("shell", "a plain shell, to look around in"),
    )
}
