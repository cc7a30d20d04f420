"""The `shell` tool: commands in a task's own image, on an isolation that starts containers."""
