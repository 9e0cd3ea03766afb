"""Text that a run prints."""
import textwrap

from ..utils.text import printable
from .config_file import Settings

_INDENT, _WIDTH = 12, 88


def say(title: str, text: str) -> None:
    """Print a paragraph with a title in front."""
    print(textwrap.fill(
        printable(text), _WIDTH, initial_indent=f'{title:<{_INDENT}}',
        subsequent_indent=' ' * _INDENT, break_long_words=False,
        break_on_hyphens=False), flush=True)


def print_choices(settings: Settings) -> None:
    """Print a line for each choice: name, value, reason, and its option."""
    print('settings')
    for name, value, reason, option in settings.choices.values():
        text = f'  {name:<16}{printable(value):<12}  {printable(reason)}'
        print(text + (f'  [{option}]' if option else ''), flush=True)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as '1 image' or '2 images'."""
    return f'{number:,} {noun}{"s" * (number != 1)}'
