"""The dashboard in a browser: who may come in, what runs behind each page, and how it ends."""
