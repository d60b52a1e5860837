"""checkpassword: over the appliance's account store, and over others' passwords.

- `program`: checkpassword itself; reads descriptor 3, asks, becomes the user.
- `wire`: what it says to the verifier, and the answer.
- `daemon`: the verifier, checkpasswordd, a user of its own that alone reads the store.
- `store`: the store's format; `verifier`: whether a password is right.
- `ldap`, `pam` and `sql`: checkpasswords that ask somebody else; `libpam` is PAM itself.
- `elsewhere`: what these share; `apart`: the process that does the asking; `controls`: their
  control files; `login`: what was typed.
"""
