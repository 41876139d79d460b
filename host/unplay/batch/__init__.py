"""Many recordings: what to clean, who cleans it, what came of it."""
