"""How text from outside is shown: a terminal must not obey what was typed or read."""

import logging


def printable(text: str) -> str:
    """Escape the characters of external text that a terminal cannot show."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """Escape the same characters but for tabs in each line of `text`."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


class PrintableFormatter(logging.Formatter):
    """Formats log records, Hydra's and ours, as lines that a terminal can show (conf/config.yaml)."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))
