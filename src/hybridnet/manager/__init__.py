"""The controllers over addresses and topology."""
