"""Drawing with the zoo, and measuring it."""
