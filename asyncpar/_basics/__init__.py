"""Small helpers for all of asyncpar: message texts, notes on errors, hints for users, checks of numbers, locks of modules, and
what stands for a user's function on its way (`forms.py`).

Everything in asyncpar may import from here, on both sides of a worker's channel. These modules import nothing of asyncpar but
`errors`. They stay light: nothing here imports asyncio, anyio or numpy.

What must never break: a user's object in a message takes about a line and never raises an exception (`wording.py`), and an
error that many calls share gets one note (`notes.py`).
"""
