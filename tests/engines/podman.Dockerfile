# Podman behind the command `docker`, for the tests; as docker.Dockerfile.
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends catatonit podman podman-docker crun netavark aardvark-dns nftables iptables iproute2 \
    && rm -rf /var/lib/apt/lists/* \
    && touch /etc/containers/nodocker
COPY tests/engines/box /usr/local/bin/box
# Else every call warns of it on standard error.
ENV PODMAN_IGNORE_CGROUPSV1_WARNING=1
ENTRYPOINT ["/usr/local/bin/box"]
CMD ["sleep", "infinity"]
