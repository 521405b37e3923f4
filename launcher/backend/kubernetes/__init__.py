"""Bottles on a Kubernetes cluster: two namespaces each, and the gate as the agent's init container."""

from launcher.backend.kubernetes.backend import KubernetesBottleBackend
from launcher.backend.kubernetes.bottle_plan import Cluster, KubernetesBottlePlan
from launcher.backend.kubernetes.render import manifests_yaml, render

__all__ = ["Cluster", "KubernetesBottleBackend", "KubernetesBottlePlan", "manifests_yaml", "render"]
