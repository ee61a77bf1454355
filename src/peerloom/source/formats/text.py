"""Read text and Markdown files, or all files as text."""

from peerloom.source.formats.documents import TEXT, Documents


class Text(Documents):
    """Documents that are text, unchanged."""

    suffixes = ()
    in_folder = TEXT
    html = False


FORMAT = Text
