"""authup: learn a user name and a password over SMTP or POP3, then run the rest.

    authup [ -t tries ] <smtp|pop3> checkpassword [ args ... ] prog [ args ... ]

Who is who, one connection each:

- P (`program`): speaks to the client, as the unprivileged user authup. It is the process
  that was started, so its exit status is the connection's.
- B (`broker`): P's child, root, never reads a byte of the client's. P hands it a user
  name and a password in one record of fixed size (`record`) together with the client's
  two descriptors; B runs checkpassword with them.
- U: what B is once checkpassword has become the user. The session runs there.

`smtp` and `pop3` are the two dialogues, without any I/O; `lines` cuts the client's bytes
into lines, `client` reads and writes them in time.
"""
