"""YAML and JSON documents: catalogs, profiles, manifests and records."""
