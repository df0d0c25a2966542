"""What everybody may use: words for messages, notes on errors, hints for users, checks of numbers.

Everything in asyncpar may import from here; these modules import nothing of it but `errors`, on both sides of a worker's
channel. So they stay light: nothing here imports asyncio, anyio or numpy.

What must never break: a user's object in a message costs about a line and never an exception (`wording.py`), and an error that
many calls share gets one note (`notes.py`).
"""
