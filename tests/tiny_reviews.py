"""Makes configs/tiny/reviews.csv: python tests/tiny_reviews.py > configs/tiny/reviews.csv."""

import csv
import random
import sys

GOOD = ["great", "lovely", "superb", "moving", "funny", "brilliant", "charming", "delightful"]
BAD = ["dull", "awful", "boring", "clumsy", "tedious", "lifeless", "painful", "stale"]
THINGS = ["film", "plot", "cast", "ending", "music", "dialogue", "story", "camera", "pacing", "humour"]
PLACES = ["cinema", "festival", "television"]


def rows(count: int = 600, seed: int = 0) -> list[dict[str, str]]:
    """Reviews of which a word or two says the label."""
    pick = random.Random(seed)
    made = {}
    while len(made) < count:
        label = pick.choice(["positive", "negative"])
        words = GOOD if label == "positive" else BAD
        text = f"The {pick.choice(THINGS)} was {pick.choice(words)} and the {pick.choice(THINGS)} {pick.choice(words)}."
        made[text] = {"text": text, "label": label, "place": pick.choice(PLACES)}
    return list(made.values())


if __name__ == "__main__":
    writer = csv.DictWriter(sys.stdout, ["text", "label", "place"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows())
