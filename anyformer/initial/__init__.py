"""The first weights of linear maps. Tables of vectors, such as embeddings, say their own."""

TABLE = {
    "fan_in": "fan_in:FanIn",
    "normal": "normal:Normal",
    "xavier": "xavier:Xavier",
}
