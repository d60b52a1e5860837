"""rblsmtpd: let mail in, unless a list in the DNS says who sends it."""
