"""What is read off the stream at the end."""

TABLE = {
    "language": "language:Language",
    "tied": "tied:Tied",
}
