"""Recipes beside each other: one suite, the same budget, the same seeds, one report.

`plan` says what is run, `runs` runs it, `numbers` reads what came out, `page` writes the report.
"""
