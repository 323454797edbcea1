"""A face for every name: small symmetric pictures that are always the same for a name."""
