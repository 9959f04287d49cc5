"""The core of sdpack: it builds variants, finds the mixes that fit, and selects one of them."""
