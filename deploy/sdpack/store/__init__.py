"""What builds keep: artifacts by the hash of their inputs, and measurements by theirs."""
