"""The checkpoints of a run as a person sees them: ranks, reasons, plans, differences. No Textual."""
