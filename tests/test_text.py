import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from curate.report.text import show, show_middle
from tests.report_records import HOSTILE


def test_plain_text_is_shown_as_it_is():
    assert show("scipy/docstrings v1.2 [a] <b>") == "scipy/docstrings v1.2 [a] <b>"
    assert show("Größe 名前 🙂") == "Größe 名前 🙂"


def test_breaks_and_tabs_become_spaces():
    assert show("a\nb\tc\rd\u2028e\u2029f") == "a b c d e f"


def test_controls_bidi_and_surrogates_are_replaced():
    assert show("\x1b[31m") == "�[31m"
    assert show("\x1b]0;x\x07") == "�]0;x�"
    assert show("\x9b1m\x00\x7f") == "�1m��"
    assert show("a\u202eb\u2066c\u200bd\ufeffe\ud800f") == "a�b�c�d�e�f"


def test_stacked_marks_are_capped():
    assert len(show("a" + "\u0301" * 500)) == 5


def test_cut_is_by_cells_not_characters():
    assert show("名前名前", 5) == "名前…"
    assert show("abcdef", 6) == "abcdef"
    assert show("abcdefg", 6) == "abcde…"
    assert show("abc", 1) == "…"


def test_show_middle_keeps_both_ends():
    assert show_middle("proofs-and-lemmas-00017", 12) == "proof…-00017"
    assert show_middle("short", 12) == "short"


@given(st.text(alphabet=st.characters(), max_size=60), st.integers(min_value=1, max_value=40))
def test_anything_fits_and_holds_no_control(text, width):
    for shown in (show(text, width), show_middle(text, width)):
        assert cell_len(shown) <= width
        assert not any(unicodedata.category(char)[0] == "C" for char in shown)
        assert not set(shown) & set("\n\t\r\u2028\u2029")


def test_hostile_strings_can_be_encoded():
    for text in HOSTILE:
        show(text, 40).encode("utf-8")


def test_showing_twice_changes_nothing():
    for text in HOSTILE:
        assert show(show(text)) == show(text)
