"""Have messages looked at by ClamAV and rspamd, over their sockets."""
