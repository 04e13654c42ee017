"""Patterns: who sees whom, and what a cache may forget."""

TABLE = {
    "causal": "causal:Causal",
    "documents": "documents:Documents",
    "full": "full:Full",
    "prefix": "prefix:Prefix",
    "same": "same:Same",
    "sinks": "sinks:Sinks",
    "window": "window:Window",
}
