"""McNemar's test and Holm's correction as statsmodels has them, and what they say in words."""

from itertools import combinations

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tljax.report import paired
from tljax.report.paired import Compared, Pair


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures two networks are right on, of which there are so many that both are right on, the first alone,
    the second alone, and neither."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


TABLES = [tuple(map(int, np.random.default_rng(i).integers(0, 40, 4))) for i in range(25)]
# No picture, all right, all wrong, as many right, one alone, and more than a probability can be multiplied for.
TABLES += [(0, 0, 0, 0), (9, 0, 0, 0), (0, 0, 0, 9), (5, 4, 4, 5), (5, 0, 1, 0), (0, 9, 0, 0), (0, 3000, 2800, 9)]


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_mcnemar_is_statsmodels(table):
    both, first, second, neither = table
    theirs = mcnemar([[both, first], [second, neither]], exact=True).pvalue
    found = paired.mcnemar(*answers(*table))
    assert found == paired.mcnemar(*answers(both, second, first, neither))
    # Without a picture that one alone is right on, they have 1 too.
    assert found == pytest.approx(theirs, rel=1e-10)


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for n in range(1, 12):
        # Ties among them, and ones.
        p_values = [*rng.choice([0.001, 0.01, 0.02, 1.0], n // 2), *rng.random(n - n // 2) ** 3]
        assert paired.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)
    assert paired.holm([]) == []


def test_all_pairs_are_compared_the_better_one_first():
    rng = np.random.default_rng(1)
    rights = {name: rng.random(200) < share for name, share in {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.7}.items()}
    pairs = paired.compare(rights)
    assert [{pair.better, pair.worse} for pair in pairs] == [set(names) for names in combinations("abcd", 2)]
    for pair in pairs:
        better, worse = rights[pair.better], rights[pair.worse]
        assert (pair.better_only, pair.worse_only) == ((better & ~worse).sum(), (worse & ~better).sum())
        assert pair.better_only >= pair.worse_only and pair.p == paired.mcnemar(better, worse)
    theirs = multipletests([pair.p for pair in pairs], method="holm")[1]
    assert [pair.adjusted for pair in pairs] == pytest.approx(theirs)
    # The later one of two that are as good.
    assert paired.compare({"a": rights["a"], "again": rights["a"]}) == [Pair("again", "a", 0, 0, 1.0, 1.0)]
    assert paired.compare({"a": rights["a"]}) == paired.compare({}) == []
    with pytest.raises(ValueError, match=r"^a and b: 200 and 100 pictures: both networks must have answered the same"):
        paired.compare({"a": rights["a"], "b": rights["b"][:100]})


TEST, CHOSE = Compared("test", 1200), Compared("validation", 89, ["tuned"])
FOURTEEN = "tuned is right on 14 pictures that head gets wrong, and wrong on 3 that it gets right: "


def test_a_pair_is_said_in_words():
    def say(first: int, second: int, adjusted: float, pairs: int = 1, pictures: Compared = TEST) -> str:
        pair = Pair("tuned", "head", first, second, adjusted, adjusted)
        return paired.describe([pair] * pairs, pictures)[-1]

    assert say(14, 3, 0.0127, 3) == FOURTEEN + "better, and not by chance (p 0.013, Holm over 3 pairs)"
    assert say(14, 3, 0.0127) == FOURTEEN + "better, and not by chance (p 0.013)"
    assert say(14, 3, 1e-9) == FOURTEEN + "better, and not by chance (p below 0.001)"
    assert say(14, 3, 0.05, 2) == FOURTEEN + "that may be chance (p 0.050, Holm over 2 pairs)"
    assert say(1, 0, 1.0) == (
        "tuned is right on 1 picture that head gets wrong, and wrong on none that it gets right: that may be chance "
        "(p 1.000)"
    )
    assert say(2, 2, 1.0).endswith("and wrong on 2 that it gets right: as good on these pictures")
    assert say(0, 0, 1.0) == "tuned and head are right on the same pictures"
    chosen = say(14, 3, 0.0127, pictures=CHOSE)
    assert chosen == FOURTEEN + (
        "better, and not by chance (p 0.013); the epoch of tuned was chosen on these pictures: of two equal networks "
        f"one comes out 'better' in {paired.CHOSEN_BETTER} of such cases"
    )
    # What was chosen was too good, and came out worse all the same; or both were.
    for others in (["head"], ["head", "tuned"]):
        said = say(14, 3, 0.0127, pictures=Compared("validation", 89, others))
        assert said == FOURTEEN + "better, and not by chance (p 0.013)"
    assert say(14, 3, 0.06, pictures=CHOSE) == FOURTEEN + "that may be chance (p 0.060)"


def test_a_comparison_says_on_which_pictures_and_that_it_is_of_networks():
    pairs = [Pair("tu\nned", "head", 14, 3, 0.0127, 0.0127)]
    first, second = paired.describe(pairs, Compared("validation", 1089, ["tu\nned"]))
    assert first == (
        "McNemar's exact test on the 1,089 validation pictures, which also chose the epoch of tu\\nned: it "
        "compares trained networks of one seed, not methods"
    )
    assert second.startswith(r"tu\nned is right on 14 pictures")
    assert paired.describe(pairs, TEST)[0].startswith("McNemar's exact test on the 1,200 test pictures: ")
    assert paired.describe(pairs, TEST._replace(grouped=True))[0].endswith(
        "; it counts pictures, not groups, whose pictures are often right or wrong together: p is too small"
    )
    assert paired.describe([], TEST) == []
