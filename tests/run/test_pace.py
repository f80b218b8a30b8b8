"""Speed is of this run alone."""

from __future__ import annotations

from emloom.run.pace import Pace


def test_blocks_done_before_say_nothing_about_speed() -> None:
    now = [0.0]
    pace = Pace(110, 10, clock=lambda: now[0])
    assert pace.blocks_per_s == 0
    assert pace.seconds_to_go is None
    assert str(pace) == "10 of 110 blocks, 0 blocks/s"
    now[0] = 100.0
    for _ in range(20):
        pace.advance()
    assert pace.blocks_per_s == 0.2
    assert pace.seconds_to_go == 400
    assert str(pace) == "30 of 110 blocks, 0.2 blocks/s, 0:06:40 to go"
