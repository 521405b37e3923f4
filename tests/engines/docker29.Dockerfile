# An engine of Docker's 29 line, for the tests; as docker.Dockerfile, with its two programs from PROGRAMS, which
# tools/engines.py compiles.
ARG BASE=debian:trixie-slim
ARG PROGRAMS
FROM ${PROGRAMS} AS programs

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates containerd crun docker-cli iptables iproute2 tini \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s tini /usr/bin/docker-init
COPY --from=programs /usr/local/bin/dockerd /usr/local/bin/docker-proxy /usr/local/bin/
COPY tests/engines/box /usr/local/bin/box
# No container starts with trixie's runc (1.1.15): "namespace {"time" ""} does not exist".
RUN mkdir -p /etc/docker \
    && echo '{"runtimes": {"crun": {"path": "/usr/bin/crun"}}, "default-runtime": "crun"}' > /etc/docker/daemon.json
ENTRYPOINT ["/usr/local/bin/box"]
# Without TLS, for a network that the tests have made.
CMD ["dockerd", "--host=unix:///var/run/docker.sock", "--host=tcp://0.0.0.0:2375", "--tls=false"]
