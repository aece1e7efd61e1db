"""Everyday sentences: what training draws from, then what only evaluation asks."""

DISTANCE = (
    (
        "how far [away |]is the {0}[ from me| from me in the image| from here|]?",
        "how far is it to the {0}?",
        "what is the distance to the {0}?",
        "[please |]tell me how far the {0} is.",
        "[could|can] you tell me how far [away |]the {0} is?",
    ),
    ("how many steps of one metre to the {0}?", "the {0}, is it close or far, and how far?"),
)
PRESENCE = (
    (
        "is there a {0}[ here| in the picture| in the room|]?",
        "do you see a {0}?",
        "can you find [a|the] {0}?",
        "[is|where is] the {0}[ here|]?",
    ),
    ("does the room have a {0}?", "would I find a {0} in this place?"),
)
COUNT = (
    (
        "how many {0} [are there|do you see|are in the room]?",
        "[please |]count the {0}.",
        "what is the number of {0}[ here|]?",
    ),
    ("what would counting the {0} give?", "{0}: one, two, or how many?"),
)
LISTING = (
    (
        "what [can|do] you see[ here| in the picture|]?",
        "what is [in the picture|in the room|there]?",
        "[list|name] the things [you see|in the room].",
        "[please |]describe [the room|the scene|what you see].",
    ),
    ("which furniture and things are around?", "give me an overview of what is around me."),
)
COMPARISON = (
    (
        "which is [nearer|closer][ to me|], the {0} or the {1}?",
        "is the {0} or the {1} nearer?",
        "what is closer to [me|the camera]: the {0} or the {1}?",
    ),
    (
        "walking ahead, do I meet the {0} first or the {1}?",
        "of the {0} and the {1}, which stands closer by?",
    ),
)
