"""The list of runs: its columns and its filter. No Textual."""
