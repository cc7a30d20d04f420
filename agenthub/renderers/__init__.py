"""Renderers and text protocols."""
