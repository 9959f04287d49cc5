"""Which mixes exist, how much memory each needs, and which of them fit."""
