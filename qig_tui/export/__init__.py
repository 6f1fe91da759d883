"""`qig-tui export RUN`: every sample as CSV, JSON lines or Parquet. No Textual; reads a run, changes nothing in it."""
