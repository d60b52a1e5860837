"""The header of a message: fields, address lists, host rewriting. For ofmipd and qmail-inject.

Everything works on bytes and changes no byte that it does not have to change: a field
that needs no rewriting is passed on as it came, folded, 8-bit and malformed ones
included. (Python's email package would decode, reformat, and import much.)
"""
