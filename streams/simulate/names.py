"""Readable names for a made-up bookshop: its categories and the titles of its books."""

import numpy as np

WORDS: dict[str, tuple[str, str]] = {
    "Mystery": (
        "Silent Locked Missing Crooked Midnight Borrowed Vanishing Hollow",
        "Lighthouse Witness Alibi Letter Inspector Staircase Guest Ledger",
    ),
    "Science": (
        "Curious Elegant Invisible Restless Infinite Smallest Unfinished Quantum",
        "Atom Proof Experiment Comet Equation Cell Signal Microscope",
    ),
    "Travel": (
        "Distant Slow Winding Northern Barefoot Borderless Southern Last",
        "Road Island Passport Harbour Caravan Ferry Compass Monsoon",
    ),
    "Cooking": (
        "Simple Golden Smoky Generous Hungry Salted Sunday Wild",
        "Kitchen Orchard Loaf Table Spice Market Stew Lemon",
    ),
    "History": (
        "Forgotten Gilded Broken Iron Ancient Long Burning Paper",
        "Empire Treaty Archive Crown Harvest Siege Republic Silk",
    ),
    "Poetry": (
        "Pale Tender Whispered Blue Unsent Early Falling Luminous",
        "Sparrow Sonnet River Window Autumn Echo Lantern Silence",
    ),
    "Nature": (
        "Green Patient Hidden Feral Ancient Mossy Singing Deep",
        "Forest Meadow Heron Tide Fungus Mountain Root Fox",
    ),
    "Music": (
        "Loud Velvet Electric Broken Perfect Wandering Blue Unplayed",
        "Cello Chorus Rhythm Encore Trumpet Fugue Record Melody",
    ),
    "Romance": (
        "Second Reckless Accidental Sweet Secret Stubborn Summer Faithful",
        "Promise Kiss Wedding Stranger Waltz Heart Letter Balcony",
    ),
    "Adventure": (
        "Lost Daring Frozen Savage Sunken Fearless Crimson Uncharted",
        "Expedition Treasure Pirate Canyon Summit Voyage Storm Map",
    ),
    "Philosophy": (
        "Examined Useful Restless Humble Absurd Quiet Reasonable Possible",
        "Mind Question Virtue Garden Doubt Mirror Freedom Stoic",
    ),
    "Fantasy": (
        "Enchanted Winter Thorned Shadow Silver Sleeping Starless Last",
        "Dragon Tower Sorcerer Kingdom Oath Raven Crown Labyrinth",
    ),
}
"""Adjectives and nouns of each category."""
CATEGORIES: tuple[str, ...] = tuple(WORDS)
PATTERNS = (
    "The {a} {n}", "{a} {ns}", "{A} {a} {n}", "The {n} of {p}", "{n} and {m}", "The {a} {n} of {p}", "Beyond the {n}",
    "The {n}'s {m}", "Letters from {an} {a} {n}", "{p}: The {a} {n}",
)  # fmt: skip
PLACES = (
    "Ashford",
    "Belmora",
    "Calder",
    "Dunmore",
    "Elsinore",
    "Farrow",
    "Greyholm",
    "Halden",
    "Ivara",
    "Jura",
    "Kestrel",
    "Lindholm",
    "Marlow",
    "Norwood",
)


def titles(categories: list[int], rng: np.random.Generator) -> list[str]:
    """A title for each book of the given primary categories (places in `CATEGORIES`). No two are the same."""
    taken: dict[str, int] = {}
    named = []
    for category in categories:
        adjectives, nouns = (words.split() for words in WORDS[CATEGORIES[category]])
        noun, other = rng.choice(nouns, 2, replace=False)
        adjective = str(rng.choice(adjectives))
        article = "an" if adjective[0] in "AEIOU" and adjective != "Useful" else "a"
        title = str(rng.choice(PATTERNS)).format(
            a=adjective, an=article, A=article.title(), n=noun, ns=_plural(str(noun)), m=other, p=rng.choice(PLACES)
        )
        taken[title] = taken.get(title, 0) + 1
        named.append(title if taken[title] == 1 else f"{title}, Volume {taken[title]}")
    return named


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")
