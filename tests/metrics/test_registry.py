"""Titles and places of the registered metrics."""

import pytest

from tif.metrics import registry
from tif.reports.columns import column_title


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("forget/probability", "forget prob. ↓"), ("retain/probability", "retain prob. ↑"),
        ("forget_paraphrased/probability", "forget paraphrased prob. ↓"),
        ("retain/kl", "retain KL ↓"), ("forget/kl", "forget KL"),
        ("forget/truth_ratio", "forget truth ratio ↑"), ("forget/quality", "forget quality ↑"),
        ("muse/privleak", "PrivLeak → 0"), ("membership/zlib", "AUC, zlib → ½"),
        ("known/retain_gain", "known/retain_gain"),
    ],
)  # fmt: skip
def test_the_title_of_a_column_says_set_and_direction(name, title):
    assert column_title(name) == title


def test_columns_have_places_of_their_own():
    places = []
    for metric in registry.all_metrics().values():
        if metric.name.partition("/")[0] in (*metric.columns, registry.ANY_SET):
            places += metric.columns.values()
    assert len(places) == len(set(places)) > 20
