"""The page that shows what was done to a recording, and lets one hear it."""
