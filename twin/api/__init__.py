"""REST, OpenAPI and the live page: `python -m twin api`. Stateless; any number of replicas.

Reads come from the view in Redis (`reader`, the only speaker of Redis here). Writes are asked of
the twin's owner: a record on topic `requests`, and the answer is the owner's reply (`requests`).
The API decides nothing itself, so what it says and what the twin does cannot differ.
"""
