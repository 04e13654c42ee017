"""Benchmarks: speed and memory beside what else is installed, both sides in one interleaved run."""

TABLE = {
    "loading": "loading:Loading",
}
