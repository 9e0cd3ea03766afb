"""Text for terminals, logs and lists."""


def printable(text: object) -> str:
    r"""Return the text with control characters escaped, on one line.

    A file name can contain newlines and terminal commands. They become
    ``\n`` and ``\x1b``. Bytes that are not UTF-8 become ``\udc80`` and so on.
    """
    return ''.join(
        x if x.isprintable() else x.encode('unicode_escape').decode()
        for x in str(text))


def excerpt(value: object, length: int = 80) -> str:
    """Return the start of a value's ``repr`` as printable text."""
    text = printable(repr(value))
    return text if len(text) <= length else f'{text[:length - 3]}...'
