"""Manifests of published data sets: ``python -m training.prepare <layout> ROOT --out manifest.jsonl``."""
