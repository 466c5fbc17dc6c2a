"""House rules: hidden, boosted, capped and pinned items, and the file they come from."""

import dataclasses
import os
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from bentos import house
from bentos.cascade import Ask, allowed, pinned, popular
from bentos.house import BadRules, House
from bentos.stages.novelty import freshness
from bentos.stages.rules import Boost, Freshness, Pin, Rules, Which
from freshet.settings import Settings
from streams.aggregates import HOUR
from streams.catalogue import Item
from tests.bentos.small import CATEGORIES, cascade, item_matrix, liking

FILE = """
most_per_category = 3
least_tail_exposure = 0.2
novelty = 0.3
[freshness]
by = 1
half_life_hours = 6
[hide]
items = ["i39"]
categories = ["war"]
[[boost]]
categories = ["comedy"]
by = 0.5
[[boost]]
items = ["i1"]
by = -1
[[pin]]
item_id = "i2"
position = 1
"""


def asked(rules: Rules, **changes: Any) -> Ask:
    return dataclasses.replace(Ask("ada", liking("i3", "i9"), item_matrix(), 10, rules=rules), **changes)


def ids(ask: Ask) -> list[str]:
    return [pick.item_id for pick in pinned(cascade().recommend(ask).picks, ask)]


def test_hidden_items_never_come_by_any_way() -> None:
    ask = asked(Rules(hide=Which(frozenset({"i38"}), frozenset({"war"}))))
    may = allowed(ask)
    assert not may[ask.items.index["i38"]]
    assert not any(may[row] for i, row in ask.items.index.items() if int(i[1:]) % 3 == CATEGORIES.index("war"))
    assert set(ids(ask)) <= {i for i, row in ask.items.index.items() if may[row]}
    assert "i38" not in {pick.item_id for pick in popular(ask)}


def test_a_boost_lifts_and_a_burial_sinks() -> None:
    plain = ids(asked(Rules()))
    last, first = plain[-1], plain[0]
    assert ids(asked(Rules(boost=(Boost(items=frozenset({last}), by=9.0),))))[0] == last
    assert first not in ids(asked(Rules(boost=(Boost(items=frozenset({first}), by=-9.0),))))[:3]


def test_novelty_brings_what_few_liked_and_freshness_what_came_lately() -> None:
    def likes(rules: Rules) -> float:
        answer = cascade(size=40).recommend(asked(rules)).picks
        return float(np.mean(item_matrix().column("likes_ever")[[pick.row for pick in answer]]))

    assert likes(Rules(novelty=3.0)) < likes(Rules())
    items = item_matrix()
    last = ids(asked(Rules()))[-1]
    row = items.index[last]
    described = [Item(i, "", created_at=items.tile if n == row else 1) for n, i in enumerate(items.ids)]
    fresh = dataclasses.replace(items, described=described, kept=WeakKeyDictionary(), of_tile={})
    assert ids(asked(Rules(freshness=Freshness(by=9.0)), items=fresh))[0] == last
    every = np.arange(len(items))
    assert freshness(fresh, every, 24.0)[row] == 1.0
    later = dataclasses.replace(fresh, tile=fresh.tile + 12 * HOUR, of_tile={})
    assert freshness(later, every, 6.0)[row] == pytest.approx(0.25), "two half-lives later"
    assert freshness(later, np.delete(every, row), 6.0).max() == 0.0


def test_no_more_of_a_category_than_the_cap_while_there_are_others() -> None:
    ask = asked(Rules(most_per_category=2), k=6)
    answer = cascade(size=40).recommend(ask)
    of = [int(pick.item_id[1:]) % 3 for pick in answer.picks]
    assert sorted(of) == [0, 0, 1, 1, 2, 2]
    assert len(cascade(size=40).recommend(asked(Rules(most_per_category=1), k=6)).picks) == 6, "then others follow"


def test_pins_take_their_positions_and_come_once() -> None:
    plain = ids(asked(Rules()))
    pins = Rules(pin=(Pin(plain[4], 1), Pin("i0", 3), Pin("no such item", 2), Pin("i3", 4)))
    answer = ids(asked(pins))
    assert (answer[0], answer[2]) == (plain[4], "i0")
    assert len(answer) == len(set(answer)) == 10
    assert "i3" not in answer, "what the user has liked stays away, pinned or not"
    assert ids(asked(pins, exclude=frozenset({"i0"})))[2] != "i0"


def test_a_file_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(FILE)
    rules = house.read(file)
    assert rules.hide == Which(frozenset({"i39"}), frozenset({"war"}))
    assert [boost.by for boost in rules.boost] == [0.5, -1.0]
    assert (rules.pin, rules.most_per_category, rules.least_tail_exposure) == ((Pin("i2", 1),), 3, 0.2)
    assert (rules.novelty, rules.freshness) == (0.3, Freshness(1, 6))
    assert rules.mark


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("most_per_category = 0", "most_per_category"),
        ("least_tail_exposure = 1.5", "least_tail_exposure"),
        ("novelty = -1", "novelty"),
        ("[freshness]\nhalf_life_hours = 0", "half_life_hours"),
        ("pins = []", "unknown field `pins`"),
        ("[[boost]]\nby = 99", "boost"),
        ('pin = [{item_id = "i3", position = 1}, {item_id = "i3", position = 4}]', "item 'i3' is pinned twice"),
        ("not toml", "rules.toml"),
    ],
)
def test_a_file_that_is_no_rules_says_where(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(BadRules, match=why):
        house.read(file)


def test_rules_are_read_again_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    kept = House(Settings(home=tmp_path, rules_file=file))

    def write(text: str, at: int) -> None:
        file.write_text(text)
        os.utime(file, ns=(at, at))

    write("most_per_category = 2", 1_000)
    kept.look(file)
    assert kept.rules.most_per_category == 2
    write("most_per_category = 'two'", 2_000)
    kept.look(file)
    assert kept.rules.most_per_category == 2
    assert house.OK._value.get() == 0
    write("most_per_category = 4", 3_000)
    kept.look(file)
    assert (kept.rules.most_per_category, house.OK._value.get()) == (4, 1)
    file.unlink()
    kept.look(file)
    assert kept.rules.most_per_category == 4
    with pytest.raises(BadRules, match="FRESHET_RULES_FILE"):
        House(Settings(home=tmp_path, rules_file=file)).start()
