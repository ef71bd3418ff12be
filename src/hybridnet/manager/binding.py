"""IPInstances of a pod: the public record of claims that are committed already.

Written after the claim and named after the address, so writing again is harmless: what exists for this pod is
kept, what is missing is added. A crash between the two records of a dual-stack pod is completed by the next
manager.
"""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.errors import UnknownSubnet
from hybridnet.ipam.range import address_at
from hybridnet.ipam.selection import IPFamily
from hybridnet.ipam.validity import effective_net_id
from hybridnet.kube.client import Client
from hybridnet.kube.errors import AlreadyExists
from hybridnet.manager.allocator import Grant
from hybridnet.model import labels
from hybridnet.model.address import instance_name
from hybridnet.model.core import Pod
from hybridnet.model.instance import Address, Binding, IPInstance, IPInstanceSpec, ReferredObject
from hybridnet.model.meta import ObjectMeta, OwnerReference
from hybridnet.model.network import Network, Subnet
from hybridnet.model.resource import IPINSTANCES, PODS


class NameTaken(AlreadyExists):
    """An IPInstance of that address, left by another pod, has not gone yet; it will within moments."""

    def __init__(self, instance: IPInstance) -> None:
        self.instance = instance
        super().__init__(
            409,
            "AlreadyExists",
            f"IPInstance {instance.metadata.namespace}/{instance.name} of pod "
            f"{instance.spec.binding.pod_name} is still there",
        )


class Recorder(Struct, frozen=True):
    """Writes IPInstances. *mac_of* gives the MAC of a pod's UID, the same for both families."""

    client: Client
    book: AddressBook
    mac_of: Callable[[str], str]

    async def record(self, pod: Pod, family: IPFamily, grants: list[Grant]) -> list[IPInstance]:
        """Make sure that each grant has its IPInstance. Returns those that this call has written.

        NameTaken when one must wait for an old record to go, ApiError when the API refuses.
        """
        mac = self.mac_of(pod.metadata.uid)
        results = await asyncio.gather(
            *(self._create(pod, self._build(pod, family, grant, mac)) for grant in grants),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, IPInstance)]

    def _build(self, pod: Pod, family: IPFamily, grant: Grant, mac: str) -> IPInstance:
        judgement = self.book.judgement
        subnet = judgement.subnets.get(grant.subnet)
        network = judgement.networks.get(grant.network)
        if subnet is None or network is None:
            raise UnknownSubnet(f"subnet {grant.subnet} was removed while the pod was being served; retrying")
        return build_instance(pod, family, grant, subnet, network, mac)

    async def _create(self, pod: Pod, wanted: IPInstance) -> IPInstance | None:
        try:
            return await self.client.create(IPINSTANCES, wanted)
        except AlreadyExists:
            found = await self.client.get(IPINSTANCES, wanted.name, wanted.metadata.namespace)
        if found.spec.binding.pod_uid != pod.metadata.uid or found.metadata.terminating:
            raise NameTaken(found)
        return None


def build_instance(
    pod: Pod, family: IPFamily, grant: Grant, subnet: Subnet, network: Network, mac: str
) -> IPInstance:
    """The record of one address, in the shape of the original."""
    address = address_at(grant.family, grant.address)
    prefix = subnet.spec.range.cidr.split("/")[1]
    return IPInstance(
        metadata=ObjectMeta(
            name=instance_name(address),
            namespace=pod.metadata.namespace,
            labels=_labels(pod, family, grant),
            owner_references=(_owner(pod),),
            finalizers=(labels.FINALIZER,),
        ),
        spec=IPInstanceSpec(
            network=grant.network,
            subnet=grant.subnet,
            address=Address(
                version=str(int(grant.family)),
                ip=f"{address}/{prefix}",
                mac=mac,
                gateway=subnet.spec.range.gateway,
                net_id=effective_net_id(subnet, network),
            ),
            binding=Binding(
                referred_object=ReferredObject(kind=PODS.kind, name=pod.name, uid=pod.metadata.uid),
                node_name=pod.spec.node_name,
                pod_uid=pod.metadata.uid,
                pod_name=pod.name,
            ),
        ),
    )


def _labels(pod: Pod, family: IPFamily, grant: Grant) -> dict[str, str]:
    named = {
        labels.SUBNET: grant.subnet,
        labels.NETWORK: grant.network,
        labels.NODE: pod.spec.node_name,
        labels.POD: pod.name,
        labels.POD_UID: pod.metadata.uid,
    }
    return {
        labels.VERSION: labels.VERSION_VALUE,
        labels.IP_FAMILY: family.value,
        **{key: labels.label_value(value) for key, value in named.items()},
    }


def _owner(pod: Pod) -> OwnerReference:
    return OwnerReference(
        api_version=PODS.api_version,
        kind=PODS.kind,
        name=pod.name,
        uid=pod.metadata.uid,
        controller=True,
        block_owner_deletion=False,
    )
