"""Estimate the number of tokens of a text without the model's tokenizer, to reserve quota and to cut texts.

Current tokenizers use about one token for four characters of English, one for two characters of other
alphabets, and one or more for a character of Chinese, Japanese or Korean. The UTF-8 length tells these apart.
"""

ASCII_BYTES = 4.0
OTHER_BYTES = 3.0  # half a character to two characters, by alphabet


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens of a text."""
    if text.isascii():
        return int(len(text) / ASCII_BYTES) + 1 if text else 0
    ascii_count = sum(map(str.isascii, text))
    other = len(text.encode(errors="replace")) - ascii_count
    return int(ascii_count / ASCII_BYTES + other / OTHER_BYTES) + 1


def cut_tokens(text: str, tokens: int) -> str:
    """Return the beginning of a text of at most about `tokens` tokens, cut between words if possible."""
    if estimate_tokens(text) <= tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle - 1
    cut = text[:low]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return cut[:space] if space > low // 2 else cut
