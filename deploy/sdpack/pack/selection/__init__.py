"""How one of the mixes that fit is selected: evaluation, screening, race, evidence."""
