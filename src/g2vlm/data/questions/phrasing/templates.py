"""How each form can be asked: templates that training draws from, and others that only evaluation uses.

The two sets share no sentence and differ in their turns of phrase, not merely in single words: figures in
held-out phrasings say what a model makes of a sentence that it has never read.
"""

from g2vlm.data.questions.forms import AskForm

TRAINING: dict[AskForm, tuple[str, ...]] = {
    AskForm.POINT_DEPTH: (
        "[how far away|how distant] is the {0}[ from here|]?",
        "what is the depth [of|at] the {0}?",
        "[how deep|how far into the scene] is the {0}?",
        "[tell me|give me|estimate] [the depth|how far it is] [of|to] the {0}.",
        "the {0}: [how far|what depth]?",
    ),
    AskForm.NEAREST_POINT: (
        "which [of the|] [marked|coloured] [point|dot]s is [nearest|closest] to [the camera|me|us]?",
        "[which|what] [point|dot] [is|lies] [nearest|closest]?",
        "[find|name|pick] the [nearest|closest] [marked |coloured |][point|dot].",
        "of all [the|these] [points|dots], which has the [smallest|least] depth?",
    ),
    AskForm.FARTHEST_POINT: (
        "which [of the|] [marked|coloured] [point|dot]s is [farthest|furthest] from [the camera|me|us]?",
        "[which|what] [point|dot] [is|lies] [farthest|furthest] away?",
        "[find|name|pick] the [most distant|farthest] [marked |coloured |][point|dot].",
        "of all [the|these] [points|dots], which has the [largest|greatest] depth?",
    ),
    AskForm.OBJECT_DISTANCE: (
        "how far [apart|from each other|away from each other] are the {0} and the {1}?",
        "how far is [it from |]the {0} [to|from] the {1}?",
        "what is the [distance|space] between the {0} and the {1}?",
        "[give|tell] me the distance from the {0} to the {1}.",
        "[estimate|measure] how far the {0} is from the {1}.",
    ),
    AskForm.CAMERA_DISTANCE: (
        "how far [away |]is the {0}[ from me| from the camera| from here| from us|]?",
        "how far is it [to|from here to] the {0}?",
        "what is [the|my] distance to the {0}?",
        "[give|tell] me the distance to the {0}.",
        "at what distance [is|stands] the {0}?",
        "how [near|close|distant] is the {0}?",
    ),
    AskForm.LEFT_OR_RIGHT: (
        "is the {0} [left or right of|on the left or on the right of] the {1}?",
        "on which side of the {1} is the {0}?",
        "[in this picture|as I see it], is the {0} to the left or to the right of the {1}?",
        "[where is|tell me where to find] the {0}, left or right of the {1}?",
    ),
    AskForm.HIGHER_OR_LOWER: (
        "is the {0} higher [up |]or lower [down |]than the {1}?",
        "does the {0} sit higher or lower than the {1}?",
        "compare the heights above the floor: is the {0} higher or lower than the {1}?",
    ),
    AskForm.NEARER_OR_FARTHER: (
        "is the {0} [nearer|closer] or farther [away |]than the {1}?",
        "is the {0} nearer [to me |to the camera |]or farther than the {1}?",
        "compare the distances: is the {0} nearer or farther than the {1}?",
    ),
    AskForm.TALLEST: (
        "which [of the|] [marked objects|objects with dots] is [the |]tallest?",
        "[which|what] is the tallest [marked |][object|thing]?",
        "[name|pick|find] the tallest of the [marked |][objects|things].",
    ),
    AskForm.WIDEST: (
        "which [of the|] [marked objects|objects with dots] is [the |]widest?",
        "[which|what] is the widest [marked |][object|thing]?",
        "[name|pick|find] the widest of the [marked |][objects|things].",
    ),
    AskForm.COUNT: (
        "how many {0} [are there|can you see|do you see|are in the picture]?",
        "count the {0}.",
        "what is the number of {0}?",
        "[tell me|say] how many {0} there are.",
    ),
    AskForm.WHICH_VIEW: (
        "which [view|picture|photo] shows the {0}?",
        "in which [view|picture|photo] [is|do I see|can I see] the {0}?",
        "where [is|can I see] the {0}: in which view?",
        "[find|name] the view with the {0}.",
    ),
    AskForm.SAME_POINT: (
        "which [dot|point] of view 2 is the {0} of view 1?",
        "the {0} of view 1 [is|appears] where in view 2?",
        "[find|pick] the [dot|point] in view 2 that [is|shows] the same place as the {0} in view 1.",
    ),
    AskForm.MOVED_BY: (
        "how far did [the camera|I|the photographer] move [from view 1 to view 2|between the views]?",
        "what is the distance between [the cameras|the two cameras|view 1 and view 2]?",
        "[estimate|tell me] how far the camera [moved|went] from view 1 to view 2.",
    ),
    AskForm.MOVED_SIDEWAYS: (
        "did [the camera|I] [move|go] left or right from view 1 to view 2?",
        "from view 1 to view 2, was the move to the left or to the right?",
        "[tell me|say] whether the camera went left or right between the views.",
    ),
    AskForm.MOVED_AHEAD: (
        "did [the camera|I] [move|go] forward or backward from view 1 to view 2?",
        "from view 1 to view 2, was the move forward or backward?",
        "[tell me|say] whether the camera went forward or backward between the views.",
    ),
    AskForm.TURNED_BY: (
        "by how [much|many degrees] did [the camera|I] turn from view 1 to view 2?",
        "what is the angle between [the two views|view 1 and view 2]?",
        "[estimate|tell me] the angle by which the camera turned between the views.",
    ),
    AskForm.TURNED_TO: (
        "did [the camera|I] turn left or right from view 1 to view 2?",
        "which way did the camera turn between the views, left or right?",
        "[tell me|say] whether the camera turned left or right.",
    ),
    AskForm.HIDDEN_SIDE: (
        "{0} does not show the {1}: is it to the left or to the right?",
        "[seen |]from {0}, is the {1} on the left or on the right?",
        "[which way|to which side] would I turn from {0} to see the {1}, left or right?",
    ),
    AskForm.SEEN_FROM: (
        "standing at the {0} and [facing|looking at] the {1}, is the {2} on my left or right?",
        "I stand at the {0} and look at the {1}. Is the {2} left or right of me?",
        "[seen |]from the {0}, facing the {1}: on which side is the {2}?",
    ),
}
"""What training draws from."""

HELD_OUT: dict[AskForm, tuple[str, ...]] = {
    AskForm.POINT_DEPTH: ("any idea how many metres it is to the {0}?", "I need the range of the {0}."),
    AskForm.NEAREST_POINT: (
        "which dot would I touch first walking straight ahead?",
        "who is in front: which dot?",
    ),
    AskForm.FARTHEST_POINT: ("which dot is at the very back?", "which dot would I reach last?"),
    AskForm.OBJECT_DISTANCE: (
        "if I walk from the {0} to the {1}, how long is the way?",
        "what separates the {0} and the {1}, in distance?",
    ),
    AskForm.CAMERA_DISTANCE: (
        "how long is the way from where I am to the {0}?",
        "the {0} seems close, but how far off is it really?",
    ),
    AskForm.LEFT_OR_RIGHT: (
        "relative to the {1}, where does the {0} lie: left, right?",
        "I am looking for the {0}. Is it left of the {1}, or right?",
    ),
    AskForm.HIGHER_OR_LOWER: (
        "which describes the {0} against the {1}: higher or lower?",
        "seen against the {1}, would you call the {0} higher or lower?",
    ),
    AskForm.NEARER_OR_FARTHER: (
        "seen against the {1}, would you call the {0} nearer or farther?",
        "which describes the {0} against the {1}: nearer or farther?",
    ),
    AskForm.TALLEST: (
        "which one with a dot reaches up the most?",
        "what has the greatest height among those with dots?",
    ),
    AskForm.WIDEST: (
        "which one with a dot takes up most width?",
        "what has the greatest width among those with dots?",
    ),
    AskForm.COUNT: (
        "what would you get if you counted all {0} here?",
        "{0}: how many of them do the pictures show?",
    ),
    AskForm.WHICH_VIEW: (
        "I took several photos. Which has the {0} in it?",
        "the {0} appears in one view only, but which?",
    ),
    AskForm.SAME_POINT: (
        "looking for the {0} of view 1: what is its dot in view 2?",
        "match the {0} of view 1 with a dot of view 2.",
    ),
    AskForm.MOVED_BY: (
        "what length did the camera travel to get to view 2 from view 1?",
        "how many metres lie between where view 1 and view 2 were taken?",
    ),
    AskForm.MOVED_SIDEWAYS: (
        "to take view 2 after view 1, was the step leftward or rightward: left or right?",
        "relative to view 1, view 2 was taken from farther left or right?",
    ),
    AskForm.MOVED_AHEAD: (
        "to take view 2 after view 1, was the step forward or backward?",
        "relative to view 1, was view 2 taken from farther forward or backward?",
    ),
    AskForm.TURNED_BY: (
        "how large was the rotation between taking view 1 and view 2?",
        "what turn, in degrees, leads from view 1 to view 2?",
    ),
    AskForm.TURNED_TO: (
        "was the rotation between view 1 and view 2 towards the left or the right?",
        "to take view 2, had the camera been swung left or right?",
    ),
    AskForm.HIDDEN_SIDE: (
        "the {1} is outside {0}; past which edge, left or right?",
        "if {0} were wider, would the {1} come in from the left or from the right?",
    ),
    AskForm.SEEN_FROM: (
        "with the {0} behind me and the {1} in front: which hand points at the {2}, left or right?",
        "someone leaves the {0} towards the {1}. Do they pass the {2} on the left or on the right?",
    ),
}
"""What only evaluation asks."""

OPENINGS = (
    "",
    "",
    "",
    "",
    "please: ",
    "hi! ",
    "hello, ",
    "quick question: ",
    "can you tell me: ",
    "hey, ",
    "ok, ",
)
"""Words before a question, in training; most have none."""
CLOSINGS = ("", "", "", "", "", " Please.", " Thanks!", " Thank you.", " Please tell me.")
"""Words after it."""
HELD_OUT_OPENINGS = ("", "I was wondering: ", "one more thing, ", "please help me out: ")
HELD_OUT_CLOSINGS = ("", " Many thanks!", " Please let me know.")

TRIGGERS = (" Think step by step.", " Explain your answer.", " Reason first.", " Say what you measured.")
"""Requests to reason; the first is the benchmark's own."""
BRIEF = (" Answer briefly.", " Just the answer.", " Only the answer, please.", " No explanation.")
"""Requests not to."""

LETTER_REQUESTS = (
    " Answer with the letter.",
    " Reply with the letter only.",
    " Which letter is right?",
    "",
    "",
)
WORD_REQUESTS = ("", "", " Choose one.", " Answer with one of these.")
UNIT_REQUESTS = (
    " Answer with a number in {0}.",
    " In {0}.",
    " Give it in {0}.",
    " How many {0}?",
    " (in {0})",
)
HELD_OUT_UNIT_REQUESTS = (" {0} will do as the unit.", " I would like the result in {0}.")
