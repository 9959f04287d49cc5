"""Reports of a ledger: charts and pages for people, numbers for programs."""
