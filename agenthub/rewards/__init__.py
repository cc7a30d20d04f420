"""Rewards: verifier checks and turn checks, run in the hub."""
