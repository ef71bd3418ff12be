"""What a pod's state means for its addresses."""

from hybridnet.model.core import Pod


def finished(pod: Pod) -> bool:
    """Whether the pod will never send a packet again, although its object is still there.

    Succeeded counts once every container has a status (before that the kubelet may still be tearing down); Failed
    counts whatever its reason, so a failed Job gives its address back at once (the original knew only evicted
    ones and kept the rest until the pod was deleted).
    """
    if pod.status.phase == "Succeeded":
        reported = {status.name for status in pod.status.container_statuses}
        return all(container.name in reported for container in pod.spec.containers)
    return pod.status.phase == "Failed"


def wants_address(pod: Pod) -> bool:
    """Whether the pod should have an address: bound to a node, with a network of its own, and not ending."""
    return bool(
        pod.spec.node_name
        and not pod.spec.host_network
        and not pod.metadata.terminating
        and not finished(pod)
    )
