"""The configuration tree; a package so that a wheel carries it."""
