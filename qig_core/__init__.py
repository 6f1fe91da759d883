"""The measuring core: computes the geometry, guards a run, writes its record. Imports nothing, ever."""
