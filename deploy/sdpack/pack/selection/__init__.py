"""Which of the mixes that fit is chosen: drawn, scored, screened and raced."""
