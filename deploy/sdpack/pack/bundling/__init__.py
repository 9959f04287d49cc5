"""From the winner of a race to the bundle."""
