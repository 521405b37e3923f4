"""The walls of a bottle, said once: the command lines and the compose file are both made of these."""

from importlib.resources import files
from pathlib import Path

# Without an address on the host's end of the bridge, the agent reaches the bundle and nothing of the host: an
# internal network of Docker alone leaves every host service on 0.0.0.0 open to it, at the gateway's address.
INTERNAL_OPTIONS = (("com.docker.network.bridge.inhibit_ipv4", "true"),)
BRIDGE_OPTION = "com.docker.network.bridge.name"

# Docker's resolver (127.0.0.11) knows the containers of the network, and asks the servers that it was given for all
# other names. Engines before 23.0.11, 25.0.5 and 26.0 do so for internal networks too, from the host's own network if
# the host's resolver is on loopback: a way out for data (CVE-2024-29018). A server given by --dns is asked from inside
# the container's network namespace, whatever its address: 127.0.0.1 there is the container itself.
AGENT_DNS = "127.0.0.1"
AGENT_DNS_OPTIONS = ("timeout:1", "attempts:1")

# PID 1 of the bundle is root, but has what an init needs and no more: to signal its daemons, to give them their uids
# and to take their capabilities away.
INIT_CAPABILITIES = ("KILL", "SETGID", "SETPCAP", "SETUID")
KERNEL_RULES_CAPABILITY = "NET_ADMIN"
# The gate prepares what the agent will own, and then the agent has none.
GATE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
SECURITY_OPTIONS = ("no-new-privileges",)
TMPFS = ("/run:mode=0755,size=256m", "/tmp:mode=1777,size=256m")  # noqa: S108 -- the container's own
# Compilers and test runners execute what they have written to /tmp.
AGENT_TMPFS = ("/run:mode=0755,size=64m", "/tmp:mode=1777,size=1g,exec", "/var/tmp:mode=1777,size=256m,exec")  # noqa: S108

# An engine of 20.10 lets any user bind low ports: the agent could take port 53 of its own loopback and answer the
# queries of the engine's resolver. And it lets any user send echo requests, without a raw socket.
AGENT_SYSCTLS = (("net.ipv4.ip_unprivileged_port_start", "1024"), ("net.ipv4.ping_group_range", "1 0"))
# pipelock serves 80, 443 and 53 under a user without capabilities.
BUNDLE_SYSCTLS = (("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "1 0"))


def capabilities(*, net_admin: bool) -> tuple[str, ...]:
    """What the bundle gets back after `--cap-drop ALL`."""
    return (*INIT_CAPABILITIES, KERNEL_RULES_CAPABILITY) if net_admin else INIT_CAPABILITIES


def seccomp_profile() -> Path:
    """The filter of system calls for both containers. The `docker` command reads it, wherever its engine is."""
    return Path(str(files("launcher") / "seccomp.json"))
