"""fixsmtpio: stand between an SMTP server on stdin/stdout and its client.

From pure to thin: `glob` and `rules` (the control file), `reply`, `request` and `message` (what the
two ends say), `session` (the state machine that decides), `deadline`, then `server`,
`client` and `proxy` (the processes and descriptors), `settings` and `program`.
`replay` and `check` are for people who write rule files.
"""
