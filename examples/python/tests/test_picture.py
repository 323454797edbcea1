import pytest

from faces.picture import SIDE, cells, hue, normalise, svg


@pytest.mark.parametrize("name", ["Ada", "Grace Hopper", "Ünïcode", "名前", "🙂", "x" * 1000])
def test_a_face_is_square_and_symmetric(name):
    rows = cells(name)
    assert len(rows) == SIDE
    for row in rows:
        assert len(row) == SIDE
        assert row == row[::-1]
    assert 0 <= hue(name) < 360


def test_spelling_variants_share_a_face():
    assert svg("Ada  Lovelace") == svg(" ada lovelace ")
    assert normalise("STRASSE") == normalise("Straße")


def test_different_names_have_different_faces():
    assert len({svg(f"name {n}") for n in range(500)}) == 500


def test_a_face_never_changes():
    drawn = ["".join("#" if filled else "." for filled in row) for row in cells("Ada")]
    assert drawn == ["#.#.#", "#####", "##.##", "#####", ".###."]
    assert hue("Ada") == 1
