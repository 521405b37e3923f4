# A cluster of one node, for the tests: what Debian has of it from its packages, the rest from PROGRAMS, which
# tools/engines.py compiles.
ARG BASE=debian:trixie-slim
ARG PROGRAMS
FROM ${PROGRAMS} AS programs

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates conntrack containerd containernetworking-plugins etcd-server ipset iproute2 iptables kmod kubectl \
        openssl runc socat \
    && rm -rf /var/lib/apt/lists/*
COPY --from=programs /usr/local/bin/kube /usr/local/bin/kube-router /usr/local/bin/
RUN for part in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet; do \
        ln -s kube /usr/local/bin/$part; \
    done
COPY tests/engines/box tests/engines/kubernetes/cluster /usr/local/bin/
COPY tests/engines/kubernetes/config/ /etc/kubernetes/
ENV KUBECONFIG=/etc/kubernetes/admin.conf
ENTRYPOINT ["/usr/local/bin/box"]
CMD ["/usr/local/bin/cluster"]
