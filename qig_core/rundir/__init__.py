"""The contract between a run and whoever reads it: a directory of files, format 1. Stdlib and msgspec only."""
