"""What runs graphs; each runtime's package is imported only when it is used."""
