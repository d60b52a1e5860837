"""Local delivery: qmail-lspawn, qmail-local, and the programs used in .qmail files."""
