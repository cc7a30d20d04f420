"""Suites: YAML in, tasks out."""
