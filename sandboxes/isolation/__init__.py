"""Ways of starting boxes: `jail` is built from the kernel's own parts and needs no engine."""
