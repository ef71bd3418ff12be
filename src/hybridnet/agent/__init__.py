"""The node process: CNI server, reconcilers, neighbour resolver."""
