"""Wires the verbs together: a kernel, a corpus, and the loop that measures, judges, records and saves."""
