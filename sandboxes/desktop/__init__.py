"""The desktop tool: real programs on a display in a box, acted on by keys and pointer alone."""
