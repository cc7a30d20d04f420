"""The hub as a server: dispatcher, faces, leases."""
