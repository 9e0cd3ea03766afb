"""Text for terminals, logs and lists."""


def printable(text: object) -> str:
    r"""Return the text with control characters escaped, on one line.

    A file name can contain newlines and terminal commands. They become
    ``\n`` and ``\x1b``. Bytes that are not UTF-8 become ``\udc80`` and so on.
    """
    return ''.join(
        x if x.isprintable() else x.encode('unicode_escape').decode()
        for x in str(text))


def size_text(number: int) -> str:
    """Return a number of bytes as text, in MB (1e6) or GB (1e9)."""
    if number >= 1e9:
        return f'{number / 1e9:.1f} GB'
    return f'{number / 1e6:.1f} MB'


def excerpt(value: object, length: int = 80) -> str:
    """Return the start of a value's ``repr`` as printable text."""
    text = printable(repr(value))
    return text if len(text) <= length else f'{text[:length - 3]}...'
