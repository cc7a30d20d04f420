"""The browser tool: pages of one Chromium in a box, acted on by input events alone."""
