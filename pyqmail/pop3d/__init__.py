"""qmail-pop3d: let a user read and delete the mail in a Maildir."""
