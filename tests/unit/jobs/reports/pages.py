"""Reading a report as a person would: its tables, its plots, its words; and whether it is sound HTML."""

from html.parser import HTMLParser

from bs4 import BeautifulSoup, Tag

_VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Strict(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.faults.append(f"{tag} has an attribute twice")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of an svg that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes what is not open, line {self.getpos()[0]}")


def faults(page: str) -> list[str]:
    """What is wrong with the page as HTML."""
    reader = _Strict()
    reader.feed(page)
    reader.close()
    found = reader.faults + [f"<{tag}> is never closed" for tag in reader.open]
    ids = [str(each["id"]) for each in soup(page).find_all(id=True)]
    return found + [f"two elements are called {each}" for each in sorted(ids) if ids.count(each) > 1]


def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup(page, "html.parser")


def default_part(page: str) -> Tag:
    """The page without the details of the other routers."""
    whole = soup(page)
    for other in whole.select("details.router"):
        other.decompose()
    return whole


def table(page: str, title: str) -> list[list[str]]:
    """The rows of the first table under this heading, column names first."""
    heading = next(each for each in default_part(page).find_all(["h3", "h4"]) if each.get_text() == title)
    found = heading.find_next("table")
    assert found is not None
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in found.find_all("tr")]


def headings(page: str) -> list[str]:
    return [each.get_text() for each in default_part(page).find_all(["h2", "h3"])]


def plot_titles(page: str) -> list[str]:
    return [str(each["aria-label"]) for each in default_part(page).find_all("svg")]


def texts(svg: str | Tag) -> list[str]:
    """What is written in a plot."""
    drawn = soup(svg) if isinstance(svg, str) else svg
    return [each.get_text() for each in drawn.find_all("text")]
