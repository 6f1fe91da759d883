"""Several runs beside one another: what is laid over what, and what differs. No Textual."""
