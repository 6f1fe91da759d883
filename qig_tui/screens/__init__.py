"""One screen or dialog each, with its arrangement beside it."""
