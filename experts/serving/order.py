"""In which order rows are answered: few adapters at a time, rows of about one length together."""

from collections.abc import Hashable, Sequence


def arrange(
    adapters: Sequence[Hashable | None], needs: Sequence[int], resident: Sequence[Hashable], rows: int, tokens: int
) -> list[list[int]]:
    """Places of all rows in stretches to be run one after the other.

    ``needs`` are the tokens each row may come to. A stretch is all of it where ``rows`` of the longest fit into
    ``tokens``; otherwise a row is never with one of less than half its need, so that short rows do not wait in lanes as
    long as the longest. Within a stretch the resident adapters come first, then the others as they were asked for, and
    each adapter's rows by length, down and up in turn, so that neighbours are alike across adapters too.
    """
    if not needs:
        return []
    if max(needs) * min(rows, len(needs)) <= tokens:
        classes = [list(range(len(needs)))]
    else:
        by_class: dict[int, list[int]] = {}
        for place, need in enumerate(needs):
            by_class.setdefault((need - 1).bit_length(), []).append(place)
        classes = [by_class[key] for key in sorted(by_class, reverse=True)]
    return [_by_adapter(places, adapters, needs, resident) for places in classes]


def _by_adapter(
    places: Sequence[int],
    adapters: Sequence[Hashable | None],
    needs: Sequence[int],
    resident: Sequence[Hashable],
) -> list[int]:
    groups: dict[Hashable | None, list[int]] = {adapter: [] for adapter in resident}
    for place in places:
        groups.setdefault(adapters[place], []).append(place)
    ordered: list[int] = []
    for turn, group in enumerate(filter(None, groups.values())):
        ordered += sorted(group, key=lambda place: needs[place], reverse=turn % 2 == 0)
    return ordered
