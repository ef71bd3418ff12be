"""Pure plans: a node's view of the cluster to the kernel state it must have. No I/O."""
