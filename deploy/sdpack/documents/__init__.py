"""What is read and written as YAML or JSON: catalogs, profiles, manifests and records."""
