"""Which datasets there are, where their files come from, and their prepared form."""
