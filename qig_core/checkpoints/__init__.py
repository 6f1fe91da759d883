"""Checkpoints that can be trusted: published whole or not at all, verified before they are used."""
