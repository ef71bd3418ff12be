"""Typed API objects and canonical addresses: what every other layer speaks. No I/O here."""
