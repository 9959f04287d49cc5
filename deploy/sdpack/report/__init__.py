"""What a ledger shows, as charts and pages for people and numbers for machines."""
