"""The model zoo: small trained text-to-image parts, and the code that trained them."""
