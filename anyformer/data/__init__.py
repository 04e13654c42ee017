"""Data: files and what ships with Python, as tokens that a model can read."""

TABLE = {
    "python_docs": "python_docs:PythonDocs",
    "text": "text:Text",
}
