"""Experts: trajectories that were recorded elsewhere, as a source of tokens to learn from.

`config` names the source, `library` reads it and finds an expert for a task, `scripted` gives a script its tokens by
playing it on the hub, `beside` puts experts beside what the policy plays, `record` writes a file of them.
"""
