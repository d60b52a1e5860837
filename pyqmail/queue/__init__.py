"""The queue: its layout on disk, the server that fills it, and those who look at it."""
