"""Whose mail it is: users/assign and users/cdb (qmail-users(5))."""
