"""Which fast paths this very machine takes: each proves itself right and faster before it is used.

Whether a library offers a product says little: the same call may run through the processor's own
instructions, as a loop a thousand times slower, or add up in sixteen bits and overflow. `trials` holds, for
each path, a numeric test and a timing against the plain way, `measuring` times them by turns, and `deciding`
asks once, keeps the verdict for the processor and the libraries, and hears what the user wishes.
"""
