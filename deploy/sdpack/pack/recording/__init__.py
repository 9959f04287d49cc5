"""The records of builds and studies in the ledger."""
