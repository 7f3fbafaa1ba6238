"""Which pictures are shown, and what stands above them."""

import numpy as np
import pytest

from tljax.report.worst import Caption, Seen, choose_color, choose_worst, explain, shorten, write_captions


def test_certain_mistakes_come_first_and_certain_right_ones_last():
    right = np.array([True, False, True, False, True])
    assert choose_worst(right, np.array([0.9, 0.4, 0.3, 0.8, 0.6])).tolist() == [3, 1, 2, 4, 0]
    many = np.linspace(0.2, 0.9, 60)
    assert choose_worst(np.arange(60) % 2 == 0, many).tolist() == list(range(59, 9, -2))
    # What has no probability, as that of a network that diverged, is shown where nothing else is.
    assert choose_worst(np.array([False, False]), np.array([np.nan, 0.5])).tolist() == [1, 0]


CAPTION = "Above each: what the network says, its probability, and what the picture is"


LEAST = "of which the network is least certain"


@pytest.mark.parametrize(
    ("wrong", "right", "of", "said"),
    [
        (3, 30, 33, "3 mistakes on the 33 validation pictures, the most certain first, then the right ones "
            f"{LEAST} (22)."),
        (1, 2, 3, f"1 mistake on the 3 validation pictures, then the right ones {LEAST} (2)."),
        (25, 30, 55, "25 mistakes on the 55 validation pictures, the most certain first."),
        (40, 0, 40, "40 mistakes on the 40 validation pictures, here are the 25 most certain."),
        (0, 30, 30, f"No mistake on the 30 validation pictures, here are those {LEAST}."),
        (40, 9, 99, "40 mistakes on 49 of the 99 validation pictures, those that the first process reads, here are the "
            "25 most certain."),
    ],
)  # fmt: skip
def test_the_lines_above_say_which_pictures_they_are(wrong, right, of, said):
    labels, predicted = np.zeros(wrong + right, int), np.array([1] * wrong + [0] * right)
    lines = explain(predicted, labels, Seen(of, "validation"))
    assert lines == [said, f"{CAPTION}; red is wrong, green is right."]


def test_without_a_counterpart_nothing_is_right_or_wrong():
    first, second = explain(np.full(3, -1), np.array([0, 1, 2]), Seen(3, "training"))
    assert first.startswith("Out of the 3 training pictures, those of which the network is most certain: no class has")
    assert second == f"{CAPTION}."
    assert [choose_color(*pair) for pair in ((-1, 0), (0, 0), (1, 0))] == ["black", "tab:green", "tab:red"]


def test_captions_are_on_one_line_where_all_of_them_fit():
    captions = [Caption("3", 0.921, "5"), Caption("cat: tabby", np.nan, "dog")]
    fits = lambda most: lambda text: len(text) <= most  # noqa: E731
    assert write_captions(captions, fits(20)) == ["3 92% (is 5)", "cat: tabby (is dog)"]
    assert write_captions(captions, fits(18)) == ["3 92%\n(is 5)", "cat: tabby\n(is dog)"]
    assert write_captions([Caption("a" * 200, 0.5, "0123456789")], fits(11)) == ["aaa…aaa 50%\n(is 012…89)"]


@pytest.mark.parametrize(
    ("most", "said"), [(10, "abcdefghij"), (9, "abcd…ghij"), (4, "ab…j"), (2, "a…"), (1, "…"), (0, "…")]
)
def test_a_name_that_is_too_long_loses_its_middle(most, said):
    assert shorten("abcdefghij", lambda text: len(text) <= most) == said
