"""The Python sandbox: a resident interpreter in a box, and a fresh one for grading."""
