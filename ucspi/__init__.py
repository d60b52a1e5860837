"""What programs joined by exec share: the chain, control files, log lines.

The only package that acceptutils, pyqmail and appliance may all import; it imports
none of them.
"""
