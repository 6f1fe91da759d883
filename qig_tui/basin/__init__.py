"""The path of a basin: its entries, distances and tangent map. No Textual."""
