"""Sets of parts that cannot win, left out before anything is made of them but fp32 graphs."""
