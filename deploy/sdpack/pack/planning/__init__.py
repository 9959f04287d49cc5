"""Which mixes there are, what each needs, and which of them fit."""
