"""qmail-send and its company: start, clean, and the protocol with the spawners."""
