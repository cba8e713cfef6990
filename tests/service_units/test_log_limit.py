"""The limit on lines that callers can cause in the service's log."""

from __future__ import annotations

import logging

from cluster.service.log_limit import AtMost


def test_a_flood_of_one_kind_of_line_is_cut_short_and_told() -> None:
    now, lines = [0.0], []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(AtMost(most=3, within_s=60, clock=lambda: now[0]))
    logger = logging.Logger("flooded")
    logger.addHandler(handler)

    def refuse(number: int) -> None:
        logger.warning("refused %d", number)

    for number in range(1000):
        refuse(number)
    assert lines == ["refused 0", "refused 1", "refused 2"]
    logger.warning("something else")
    assert lines[3:] == ["something else"], "a flood does not hide other lines"
    now[0] = 60.0
    refuse(1000)
    refuse(1001)
    assert lines[4:] == ["refused 1000 (and 997 such lines before)", "refused 1001"]
