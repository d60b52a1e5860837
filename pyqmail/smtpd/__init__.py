"""qmail-smtpd: receive mail from anyone, for the domains in rcpthosts."""
