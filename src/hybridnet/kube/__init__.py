"""The Kubernetes API: client, informers, election, events."""
