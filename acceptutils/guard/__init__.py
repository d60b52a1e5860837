"""Guarding the door: who guesses passwords waits longer each time, and is refused in the end.

authguardd (`daemon`) keeps what all services know of failed attempts (`policy`), and tells
whoever listens of each outcome (`events`). authup's broker asks it by way of `client`; what
they say to each other is in `wire`.
"""
