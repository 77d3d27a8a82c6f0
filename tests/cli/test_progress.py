"""Where stderr is no terminal, a line a minute says how far a loop is."""

import pytest

from unhot.cli import output


def test_a_loop_says_how_far_it_is_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    output.prepare_streams()
    for name in ("training images", "test images"):
        with output.progress(name, 5_000) as advance:
            for _ in range(5):
                clock[0] += 25
                advance(1_000)
    said = ["training images: 3,000 of 5,000", "test images: 1,000 of 5,000", "test images: 4,000 of 5,000"]
    assert capsys.readouterr().err.splitlines() == said
