"""Where things are in a running bundle: ports, users, paths. docs/image.md has the same as a table."""

from __future__ import annotations

from pathlib import Path

PIPELOCK_PORT = 8888
EGRESS_PORT = 9099
# egress for git-gate: the port tells whose credentials and whose hosts.
EGRESS_GIT_PORT = 9098
GIT_GATE_PORT = 9418
SUPERVISE_PORT = 9100
# Loopback only, and only with the real pipelock: where the kernel sends that user's connections.
TRANSPARENT_PORT = 18082
# The same for its queries for names: a resolver of ours, by which every name has a made-up address.
REAL_NAMES_PORT = 18053
# Where the parent of the real pipelock says what that does not say itself: which policy it obeys.
REAL_STATE_PORT = 18889
METRICS_PORT = 18888

PIPELOCK_BINARY = Path("/usr/local/bin/pipelock")
SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")

RUN = Path("/run/bottle")
# Where a policy is looked for: handed in by the operator, a directory or volume, a single file.
POLICIES = (RUN / "policy.toml", Path("/etc/bottle/policy/policy.toml"), Path("/etc/bottle/policy.toml"))
# What setup has compiled of it for the start, and what the operator approved since: both root's, and readable by all.
COMPILED_POLICY = RUN / "policy.json"
APPROVALS = RUN / "approvals.json"
# What outlives the daemons: a directory, or a link to the volume at STATE_VOLUME (see prepare.py).
STATE = RUN / "state"
STATE_VOLUME = Path("/var/lib/bottle")
AUDIT = STATE / "audit"
OPERATOR = STATE / "operator"
# Below these two, each user's own directory, mode 0700. OPERATOR is root's.
OWNED_STATE = {
    STATE: {"git-gate": "git", "supervise": "supervise"},
    AUDIT: {user: user for user in ("egress", "pipelock", "git-gate", "supervise")},
}
# Hashes of the credentials, for git-gate's scan: root's, and readable by all.
KNOWN_SECRETS = RUN / "known-secrets.json"
ENGINE = RUN / "engine"
WALLS = RUN / "walls"
# Which init setup has prepared this directory for: there is no second time (prepare.py).
PREPARED = RUN / "prepared"
# Root's, 0700: what was handed in by bottle-secrets and bottle-rotate. It is stronger than a file of that name.
SECRETS = RUN / "secrets"
SECRETS_SOCKET = SECRETS / "handed-in.sock"
MOUNTED_SECRETS = Path("/run/secrets")
# Root's: its presence is the kill switch, for both engines (bottle-kill-switch).
KILL_SWITCH = RUN / "kill-switch"
PUBLIC = RUN / "ca"
PIPELOCK_CA = PUBLIC / "pipelock-ca.pem"
EGRESS_CA = PUBLIC / "egress-ca.pem"

EGRESS = RUN / "egress"
ORIGIN_CAS = EGRESS / "origins.pem"
CREDENTIALS = EGRESS / "credentials.json"
PIPELOCK = RUN / "pipelock"
PIPELOCK_CONFIG = PIPELOCK / "pipelock.yaml"
SUPERVISE = RUN / "supervise"
OPERATOR_SOCKET = SUPERVISE / "operator.sock"
# supervise's, and open to the proxies: they ask there about a request that they hold.
ASK = RUN / "ask"
GIT_GATE = RUN / "git-gate"
# Root's, and of no use to who reads it: hashes of the credentials, for which git-gate looks in pushes.
KNOWN_SECRETS = RUN / "known-secrets.json"
# Each belongs to its user, mode 0700.
PRIVATE = {"egress": EGRESS, "pipelock": PIPELOCK, "git-gate": GIT_GATE, "supervise": SUPERVISE}
# Inside of a daemon's directory: key and certificate for bottle-proxy, and each alone for the real pipelock.
CA_WITH_KEY = "ca.pem"
CA_CERTIFICATE = "ca-cert.pem"
CA_KEY = "ca-key.pem"
# pipelock's authority, handed in (bottle-secrets) or mounted at MOUNTED_SECRETS.
HANDED_IN_KEY = "bottle-ca.key"
HANDED_IN_CERTIFICATE = "bottle-ca.pem"
