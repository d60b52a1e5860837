"""ofmipd: take mail from an authenticated user to anywhere, with its header put right."""
