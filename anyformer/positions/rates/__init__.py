"""How fast the pairs of a rotary scheme turn, where texts are longer than those of training."""

TABLE = {
    "linear": "linear:Linear",
    "llama3": "llama3:Llama3",
    "longrope": "longrope:LongRoPE",
    "longrope_published": "longrope:PublishedLongRoPE",
    "ntk": "ntk:NTK",
    "ntk_published": "ntk:PublishedNTK",
    "proportional": "proportional:Proportional",
    "yarn": "yarn:YaRN",
}
