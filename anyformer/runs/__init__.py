"""Run folders: atomic files, manifests, locks, metrics, weights and snapshots."""
