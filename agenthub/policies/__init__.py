"""Policies: embedded and scripted."""
