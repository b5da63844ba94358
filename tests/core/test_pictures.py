"""Curves as pictures."""

from clm_core.runs.plot import draw_losses

LINES = {"training": [(step, 1 / step) for step in range(1, 50)], "validation": [(0, 2.0), (25, 1.0)]}


def test_the_losses_of_a_run_become_a_picture(tmp_path):
    draw_losses(tmp_path / "curve.png", LINES)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_losses_make_the_same_file_and_others_another(tmp_path):
    for name, lines in {"one": LINES, "two": LINES, "three": {**LINES, "validation": [(0, 3.0)]}}.items():
        draw_losses(tmp_path / name, lines)
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
