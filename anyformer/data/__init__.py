"""Data: files and what ships with Python, as tokens that a model can read."""

TABLE = {
    "conversations": "conversations:Conversations",
    "hub": "hub:Hub",
    "mixture": "mixture:Mixture",
    "parallel": "parallel:Parallel",
    "prompts": "prompts:Prompts",
    "python_docs": "python_docs:PythonDocs",
    "table": "table:Table",
    "text": "text:Text",
}
