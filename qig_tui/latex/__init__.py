"""Formulas laid out in two dimensions as plain text. No Textual."""
