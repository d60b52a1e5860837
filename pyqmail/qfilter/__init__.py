"""Filters in front of the queue: the system's, and a user's own."""
