"""A game whose turns take a fixed long tail of times, and a small policy that learns it."""
