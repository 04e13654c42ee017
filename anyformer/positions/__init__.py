"""Where tokens are, told to the embeddings, to queries and keys, or to the scores."""

TABLE = {
    "alibi": "alibi:ALiBi",
    "alibi_rounded": "alibi_rounded:RoundedALiBi",
    "learned": "learned:Learned",
    "none": "none:NoPosition",
    "rotary": "rotary:Rotary",
    "segments": "segments:Segments",
    "several": "several:Several",
    "shaw": "shaw:Shaw",
    "sinusoidal": "sinusoidal:Sinusoidal",
    "sinusoidal_halves": "sinusoidal_halves:SinusoidalHalves",
    "t5": "t5:T5",
}
