"""How a part joins the stream inside a block."""

TABLE = {
    "post": "post:Post",
    "pre": "pre:Pre",
}
