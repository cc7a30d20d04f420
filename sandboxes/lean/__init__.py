"""Lean: feedback for a policy, and a judge that reads what was compiled and believes nothing else."""
