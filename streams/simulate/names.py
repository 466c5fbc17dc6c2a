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
    "The {a} {n}", "{a} {n}s", "A {a} {n}", "The {n} of {p}", "{n} and {m}", "The {a} {n} of {p}", "Beyond the {n}",
    "The {n}'s {m}", "Letters from a {a} {n}", "{p}: The {a} {n}",
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
        title = str(rng.choice(PATTERNS)).format(a=rng.choice(adjectives), n=noun, m=other, p=rng.choice(PLACES))
        taken[title] = taken.get(title, 0) + 1
        named.append(title if taken[title] == 1 else f"{title}, Volume {taken[title]}")
    return named
