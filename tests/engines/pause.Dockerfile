# What holds a pod's namespaces open.
ARG BASE=debian:trixie-slim
FROM ${BASE}
CMD ["sleep", "infinity"]
