"""What went wrong, from raised to cleared, and how a run was stopped. No Textual."""
