"""netqmail's programs in Python: same names, files, replies and guarantees."""
