"""A mail system in a directory of its own, and ways to make its programs and disk fail."""
