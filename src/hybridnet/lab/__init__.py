"""A whole Kubernetes cluster in network namespaces of one machine."""
