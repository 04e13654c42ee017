"""Recipes: everything that a training run is, in one YAML file; some ship with the package."""
