"""The child's side: what runs inside a worker. Nothing here imports asyncio, anyio or numpy on its own account."""
