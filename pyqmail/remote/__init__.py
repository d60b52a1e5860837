"""Remote delivery: qmail-rspawn and qmail-remote."""
