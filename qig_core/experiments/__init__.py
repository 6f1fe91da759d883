"""Protocols: a hypothesis, its measure, its null, its margin and its rule, written down before the data."""
