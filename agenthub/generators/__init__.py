"""Generators: seeded sources of tasks."""
