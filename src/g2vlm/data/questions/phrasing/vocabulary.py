"""Other words for things, and words for things that the world does not have."""

from collections.abc import Collection

SYNONYMS: dict[str, tuple[str, ...]] = {
    "sofa": ("couch",),
    "bookshelf": ("bookcase", "book shelf"),
    "rug": ("carpet",),
    "poster": ("picture", "painting"),
    "television": ("TV", "screen"),
    "bin": ("trash can", "waste bin"),
    "mug": ("cup",),
    "plant": ("potted plant",),
    "cabinet": ("cupboard",),
    "wardrobe": ("closet",),
    "floor lamp": ("standing lamp",),
    "table lamp": ("desk lamp",),
    "book stack": ("pile of books", "stack of books"),
    "desk": ("writing desk",),
}
"""What people also call the things of the world; a model learns to answer with the first word."""

UNKNOWN_TRAINING = (
    "giraffe", "bicycle", "piano", "toaster", "umbrella", "guitar", "elephant", "ladder", "backpack",
    "kettle", "helmet", "keyboard", "printer", "violin", "candle", "scissors", "hammer", "suitcase",
    "microscope", "tractor", "penguin", "camel", "drum", "anchor", "telescope", "balloon", "barrel",
    "basket", "blender", "bottle", "broom", "bucket", "camera", "canoe", "carrot", "cello", "compass",
    "crown", "dolphin", "donkey", "engine", "envelope", "feather", "flute", "fountain", "goat", "hedgehog",
    "horse", "igloo", "jacket", "kangaroo", "kayak", "lemon", "lizard", "magnet", "motorbike", "necklace",
    "octopus", "owl", "parrot", "pineapple", "pizza", "rabbit", "rocket", "saddle", "sandwich", "saxophone",
    "scarf", "sheep", "shovel", "skateboard", "snowman", "spider", "statue", "sword", "tent", "tiger",
    "towel", "train", "trumpet", "turtle", "typewriter", "unicorn", "wallet", "whale", "wheelbarrow",
    "windmill", "zebra", "squirrel", "screwdriver", "sponge", "sink", "oven", "fridge",
)  # fmt: skip
"""Words of which a model learns to say that it does not know them."""

UNKNOWN_HELD_OUT = (
    "accordion", "alligator", "banjo", "bathtub", "binoculars", "cactus", "dishwasher", "dragon",
    "excavator", "flamingo", "gorilla", "hair dryer", "harp", "iron", "jellyfish", "lawnmower", "lobster",
    "microwave", "parachute", "pumpkin", "robot", "sewing machine", "surfboard", "treadmill",
    "vacuum cleaner", "wheelchair",
)  # fmt: skip
"""The same for evaluation: no training names them."""


_PLURALS = {"bookshelf": "bookshelves", "man": "men", "woman": "women", "child": "children"}
_ALWAYS_SEVERAL = frozenset(("apples", "binoculars", "clothes", "flowers", "scissors", "shoes"))


def plural_of(noun: str) -> str:
    """Several of a thing."""
    first, _, last = noun.rpartition(" ")
    if last in _ALWAYS_SEVERAL:
        return noun
    several = _PLURALS.get(last) or (f"{last}es" if last.endswith(("x", "s", "ch", "sh")) else f"{last}s")
    return f"{first} {several}".lstrip()


def with_article(name: str) -> str:
    """A name with "a" or "an"; nouns that are always several have none."""
    if name.rpartition(" ")[2] in _ALWAYS_SEVERAL:
        return name
    # By sound: all names of the world that begin with a vowel sound like one, but for "unicorn".
    vowel = name[:1].lower() in "aeiou" and not name.startswith("uni")
    return f"{'an' if vowel else 'a'} {name}"


def unknown_words(words: tuple[str, ...], known: Collection[str]) -> list[str]:
    """Those of some words that name nothing the world has, whatever the assets that it was drawn with.

    Args:
        words: `UNKNOWN_TRAINING` or `UNKNOWN_HELD_OUT`.
        known: nouns of the world; their synonyms count as known too.
    """
    also = {other for noun in known for other in SYNONYMS.get(noun, ())}
    return [word for word in words if word not in known and word not in also]
