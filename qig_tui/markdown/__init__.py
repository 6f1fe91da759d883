"""Markdown files read and laid out in lines, formulas included. No Textual."""
