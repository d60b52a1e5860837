"""Recipients that are refused in the SMTP conversation, in the manner of rejectutils."""
