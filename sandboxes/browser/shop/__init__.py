"""A small shop with a database of its own: pages for tasks that are graded by what stands in the database."""
