"""The host's side of a device: its files, the link, what is sent and fetched."""
