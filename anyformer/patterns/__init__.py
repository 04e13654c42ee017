"""Patterns: who sees whom, and what a cache may forget."""

TABLE = {
    "causal": "causal:Causal",
    "documents": "documents:Documents",
    "full": "full:Full",
    "global_tokens": "global_tokens:GlobalTokens",
    "near_blocks": "near_blocks:NearBlocks",
    "prefix": "prefix:Prefix",
    "random_blocks": "random_blocks:RandomBlocks",
    "same": "same:Same",
    "sinks": "sinks:Sinks",
    "window": "window:Window",
}
