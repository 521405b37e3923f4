# An engine of trixie's (26.1), for the tests: tools/engines.py builds it, tests/integration/support/engines.py runs it.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends docker.io docker-cli iptables iproute2 openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && mkdir -p /run/sshd
COPY tests/engines/box /usr/local/bin/box
ENTRYPOINT ["/usr/local/bin/box"]
# Without TLS, for a network that the tests have made.
CMD ["dockerd", "--host=unix:///var/run/docker.sock", "--host=tcp://0.0.0.0:2375", "--tls=false"]
