"""Texts on which tokenizers differ; changing them changes the digests of slow tokenizers."""

HARD_TEXTS = (
    *("", " ", "  ", "\n", "\t\n \r\n", " a", "a ", "a  b", "\n\n\na", "a\u00a0b\u2003c\u200bd\ufeff"),
    *("\x00a\x1b[0m\x7f", "a\r\nb\rc\vd\fe\x85f", "don't I'LL we've 'tis ''' 's", "a_b-c/d\\e @#$%^&*()[]{}<>|~`"),
    *("1 12 123 1234 3.14 1,000,000 0x1F ½ ² Ⅷ ٣", "naïve café Übergröße ﬁ ǆ ſ İ ı", "ß ẞ \u1e9b\u0323"),
    *("e\u0301 a\u0308\u0323 \u0344 क्षि สวัสดี", "日本語のテキスト 中文 한국어", "שלום עולם \u202eabc\u202c مرحبا"),
    *("👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈🇩🇪👍🏽", "\U0001f600" * 9, "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff \ufffd \ufffe"),
    *("a" * 500, "ab " * 200, " " * 300, "\n" * 99, "<|endoftext|><|endoftext|> <|im_start|>user"),
    *(
        "<|endoftext|> <s></s> [CLS] [SEP] <pad> <unk>",
        "http://a.b/c?d=e#f",
        "def f(x):\n\treturn {'k': [1, 2]}  # ok\n",
    ),
    *(
        "The quick brown fox.\n\nIt jumps -- over; the: lazy… dog!?",
        "ﷺ ͡° ͜ʖ\u2028\u2029",
        "Ａｆｕｌｌｗｉｄｔｈ\u3000ｔｅｘｔ",
    ),
)
"""Spaces, control characters, contractions, numbers, combining marks, scripts, emoji, long runs, special tokens."""
