"""What the numbers mean for the run: limits, verdicts, and stopping in order."""
