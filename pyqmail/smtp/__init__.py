"""What the servers that speak SMTP to a client share: qmail-smtpd and ofmipd."""
