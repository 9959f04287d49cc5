"""What a build or a study writes into the ledger about itself."""
