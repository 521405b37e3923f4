"""The walls of a bottle, said once: the argv of `docker` and the compose file are both made of these."""

# Without an address on the host's end of the bridge, the agent reaches the bundle and nothing of the host: an
# internal network of Docker alone leaves every host service on 0.0.0.0 open to it, at the gateway's address.
INTERNAL_OPTIONS = (("com.docker.network.bridge.inhibit_ipv4", "true"),)

# Docker's resolver (127.0.0.11) knows the containers of the network, and asks the servers that it was given for all
# other names. Engines before 23.0.11, 25.0.5 and 26.0 do so for internal networks too, from the host's own network if
# the host's resolver is on loopback: a way out for data (CVE-2024-29018). A server given by --dns is asked from inside
# the container's network namespace, whatever its address: 127.0.0.1 there is the container itself.
AGENT_DNS = "127.0.0.1"
AGENT_DNS_OPTIONS = ("timeout:1", "attempts:1")

# PID 1 of the bundle is root, but has what an init needs and no more: to signal its daemons, to give them their uids
# and to take their capabilities away.
INIT_CAPABILITIES = ("KILL", "SETGID", "SETPCAP", "SETUID")
REDIRECT_CAPABILITY = "NET_ADMIN"
SECURITY_OPTIONS = ("no-new-privileges",)
TMPFS = ("/run:mode=0755,size=256m", "/tmp:mode=1777,size=256m")  # noqa: S108 -- the container's own
PIDS_LIMIT = 512


def capabilities(*, redirect: bool) -> tuple[str, ...]:
    """What the bundle gets back after `--cap-drop ALL`."""
    return (*INIT_CAPABILITIES, REDIRECT_CAPABILITY) if redirect else INIT_CAPABILITIES
