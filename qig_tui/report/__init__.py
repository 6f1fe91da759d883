"""`qig-tui report RUN`: a post-mortem as Markdown with charts. No Textual; reads a run, changes nothing in it."""
