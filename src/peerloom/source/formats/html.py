"""Read web pages."""

from peerloom.source.formats.documents import HTML, Documents


class Html(Documents):
    """Documents that are web pages, of which the main text and the title are extracted."""

    suffixes = ()
    in_folder = HTML
    html = True


FORMAT = Html
