"""Netlink, nftables, sysctl, namespaces and raw sockets: the only code that touches the kernel."""
