"""Models from disk, and the types of published models, by the `model_type` of their configs."""

TABLE = {
    "bert": "bert:Bert",
    "llama": "llama:Llama",
}
