"""Generate English-looking text for the simulated model, fast and reproducibly.

A few thousand passages of two sentences are generated once from a fixed vocabulary. A text is a sequence of
passages drawn by a 64-bit linear congruential generator, cut to length between words. So texts share
passages but rarely their order, and a kilobyte takes a few microseconds.
"""

from functools import cache
from random import Random

_BITS = 12  # 4,096 passages
_MULTIPLIER = 6364136223846793005
_INCREMENT = 1442695040888963407
_MASK = (1 << 64) - 1

_OPENINGS = """
First,|In that case,|Looking closer,|By contrast,|To be careful,|As a check,|On the other hand,|Step by step,|
Put differently,|For this reason,|At first sight,|More precisely,|Taken together,|If we go back,|Even so,|
Strictly speaking,|In practice,|Without loss of detail,|Under that reading,|From there,|Once more,|As before,
""".replace("\n", "").split("|")
_NOUNS = """
argument assumption balance boundary case cause chain claim clause comparison condition constant constraint
context cost count current definition degree density detail difference direction distance effect element
energy equation error estimate evidence example exception factor field figure flow force formula fraction
frame function goal gradient group growth idea index input interval law layer level limit line link mass
measure mechanism medium method model motion number object option order outcome output pair parameter part
pattern phase point pressure price principle problem process product proof quantity question range rate
ratio reading reason record reference region relation remainder result risk role rule sample scale sequence
series set shape side signal size slope solution source standard state step structure sum surface system
table temperature term test theory threshold time total trend unit value variable vector version volume weight
""".split()
_ADJECTIVES = """
additional average basic central clear combined common complete consistent correct critical direct distinct
early equal exact expected explicit external final finite formal former general given gradual hidden ideal
immediate implicit important independent indirect initial inner internal known large latter likely linear
local main marginal minimal mixed natural negative neutral normal obvious open ordinary original outer overall
partial plain positive possible precise present previous primary proper pure random rapid rare recent regular
relative relevant remaining robust secondary separate similar simple single small special stable standard
steady strong subtle sufficient symmetric typical uniform unusual upper usual valid weak whole wide
""".split()
_VERBS = [
    verb.replace("-", " ")
    for verb in """
affects allows alters balances bounds cancels changes confirms connects contains contradicts controls covers
defines depends-on describes determines drives equals excludes exceeds explains extends favours fixes follows
gives implies includes increases indicates involves keeps leads-to leaves limits lowers matches measures meets
moves needs outweighs precedes predicts preserves produces raises reaches reduces reflects relates-to removes
repeats replaces requires resembles restricts reveals separates settles shapes shifts shows simplifies splits
suggests supports sustains tests transforms weakens yields
""".split()
]
_LINKS = """
 because| although| so that|, which means that|, whereas| unless| as long as| even when| while|, and therefore
""".strip("\n").split("|")
_ENDINGS = """
in every such case|under the same conditions|by roughly a third|at each step|over the whole range|on average|
with some room for doubt|as the question states|for the reason given above|before anything else is known|
up to a small correction|in the usual sense|when nothing else changes|to within one unit|on both sides|
from the start|after one more look|by definition|as one would expect|whichever way we count
""".replace("\n", "").split("|")


def prose(chars: int, state: int) -> str:
    """Return sentences of about `chars` characters in total, at least one word; a pure function."""
    passages = _passages()
    chars = max(chars, 1)
    parts: list[str] = []
    length = -1
    while length < chars:
        state = (state * _MULTIPLIER + _INCREMENT) & _MASK
        passage = passages[state >> (64 - _BITS)]
        parts.append(passage)
        length += len(passage) + 1
    text = " ".join(parts)
    if length == chars:
        return text
    cut = text.rfind(" ", 0, chars)
    words = text[:cut] if cut > 0 else text[: text.find(" ")]
    return words.rstrip(".,") + "."


@cache
def _passages() -> tuple[str, ...]:
    rng = Random(_BITS)
    return tuple(f"{_sentence(rng)} {_sentence(rng)}" for _ in range(1 << _BITS))


def _sentence(rng: Random) -> str:
    pick = rng.choice
    clause = f"the {pick(_ADJECTIVES)} {pick(_NOUNS)} {pick(_VERBS)} the {pick(_NOUNS)}"
    shape = rng.randrange(4)
    if shape == 0:
        body = f"{clause} {pick(_ENDINGS)}"
    elif shape == 1:
        body = f"{clause}{pick(_LINKS)} the {pick(_NOUNS)} {pick(_VERBS)} the {pick(_NOUNS)} {pick(_ENDINGS)}"
    elif shape == 2:
        body = f"{pick(_OPENINGS)} {clause}"
    else:
        body = f"{pick(_OPENINGS)} the {pick(_NOUNS)} of the {pick(_NOUNS)} {pick(_VERBS)} the {pick(_NOUNS)}"
    return f"{body[0].upper()}{body[1:]}."
