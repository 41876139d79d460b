"""Networks that ship, as files; README.md says how each was made."""
