"""Answers that hold one IFEval constraint, and answers that break it."""

# ruff: noqa: RUF001 -- sentences in the scripts of their languages

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["breaking_answer", "holding_answer"]

Arguments = Mapping[str, Any]
Write = Callable[[Arguments], list[str]]
"""Arguments -> [an answer that holds, one that breaks]."""

SENTENCES = {
    "ar": "الطقس جميل اليوم وسوف نذهب إلى السوق لشراء الخبز والفواكه الطازجة.",
    "bg": "Днес времето е хубаво и ние ще отидем на пазара, за да купим хляб и пресни плодове.",
    "bn": "আজ আবহাওয়া খুব সুন্দর এবং আমরা রুটি ও তাজা ফল কিনতে বাজারে যাব।",
    "de": "Heute ist das Wetter schön und wir gehen auf den Markt, um Brot und Obst zu kaufen.",
    "en": "Today the weather is fine and we will go to the market to buy bread and fresh fruit.",
    "fa": "امروز هوا خوب است و ما برای خرید نان و میوه تازه به بازار می‌رویم.",
    "fi": "Tänään sää on kaunis ja menemme torille ostamaan leipää ja tuoreita hedelmiä.",
    "gu": "આજે હવામાન ખૂબ સરસ છે અને અમે બ્રેડ અને તાજા ફળ ખરીદવા બજારમાં જઈશું.",
    "hi": "आज मौसम बहुत अच्छा है और हम रोटी और ताजे फल खरीदने के लिए बाजार जाएंगे।",
    "it": "Oggi il tempo è bello e andremo al mercato per comprare il pane e la frutta fresca.",
    "kn": "ಇಂದು ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ನಾವು ಬ್ರೆಡ್ ಮತ್ತು ತಾಜಾ ಹಣ್ಣುಗಳನ್ನು ಖರೀದಿಸಲು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗುತ್ತೇವೆ.",
    "ko": "오늘은 날씨가 좋아서 우리는 빵과 신선한 과일을 사러 시장에 갈 것입니다.",
    "mr": "आज हवामान खूप छान आहे आणि आम्ही भाकरी आणि ताजी फळे विकत घेण्यासाठी बाजारात जाणार आहोत.",
    "ne": "आज मौसम धेरै राम्रो छ र हामी रोटी र ताजा फलफूल किन्न बजार जानेछौं।",
    "pa": "ਅੱਜ ਮੌਸਮ ਬਹੁਤ ਵਧੀਆ ਹੈ ਅਤੇ ਅਸੀਂ ਰੋਟੀ ਅਤੇ ਤਾਜ਼ੇ ਫਲ ਖਰੀਦਣ ਲਈ ਬਾਜ਼ਾਰ ਜਾਵਾਂਗੇ।",
    "pt": "Hoje o tempo está bom e nós vamos ao mercado para comprar pão e frutas frescas.",
    "ru": "Сегодня хорошая погода, и мы пойдём на рынок, чтобы купить хлеб и свежие фрукты.",
    "sw": "Leo hali ya hewa ni nzuri na tutaenda sokoni kununua mkate na matunda mabichi.",
    "ta": "இன்று வானிலை மிகவும் நன்றாக உள்ளது, நாங்கள் ரொட்டி மற்றும் புதிய பழங்கள் வாங்க சந்தைக்குச் செல்வோம்.",
    "te": "ఈ రోజు వాతావరణం చాలా బాగుంది మరియు మేము రొట్టె మరియు తాజా పండ్లు కొనడానికి మార్కెట్‌కు వెళ్తాము.",
    "th": "วันนี้อากาศดีและเราจะไปตลาดเพื่อซื้อขนมปังและผลไม้สด",
    "ur": "آج موسم بہت اچھا ہے اور ہم روٹی اور تازہ پھل خریدنے کے لیے بازار جائیں گے۔",
    "vi": "Hôm nay thời tiết đẹp và chúng tôi sẽ đi chợ để mua bánh mì và trái cây tươi.",
}
"""One ordinary sentence in each language that the constraints name."""


def _counted(piece: str, joint: str, arguments: Arguments, relation: str, limit: str) -> list[str]:
    """[holds, breaks]: `piece` as often as the relation asks, and once too few or too many."""
    number = int(arguments[limit])
    enough, short = joint.join([piece] * number), joint.join([piece] * (number - 1))
    return [enough, short] if arguments[relation] == "at least" else [short, enough]


def _relation(piece: str, joint: str, relation: str, limit: str) -> Write:
    return lambda given: _counted(piece, joint, given, relation, limit)


def _letters(given: Arguments) -> list[str]:
    found = _counted(given["letter"], " ", given, "let_relation", "let_frequency")
    return ["0 " + each for each in found]


def _language(given: Arguments) -> list[str]:
    other = "en" if given["language"] != "en" else "de"
    return [SENTENCES[given["language"]], SENTENCES[other]]


def _paragraphs(given: Arguments) -> list[str]:
    pieces = ["A paragraph."] * given["num_paragraphs"]
    return ["\n***\n".join(pieces), "\n***\n".join([*pieces, "More."])]


def _first_word(given: Arguments) -> list[str]:
    pieces = ["Some words."] * given["num_paragraphs"]
    without = "\n\n".join(pieces)
    pieces[given["nth_paragraph"] - 1] = f"{given['first_word']} it is."
    return ["\n\n".join(pieces), without]


def _sections(given: Arguments) -> list[str]:
    headings = [f"{given['section_spliter']} {i + 1}" for i in range(given["num_sections"])]
    text = [f"{heading}\nSome words." for heading in headings]
    return ["\n".join(text), "\n".join(text[1:])]


def _at_least(piece: str, number: str, broken: str) -> Write:
    return lambda given: [piece * given[number], piece * (given[number] - 1) + broken]


def _fixed(holds: str, breaks: str) -> Write:
    return lambda given: [holds, breaks]


_WRITERS: Mapping[str, Write] = {
    "keywords:existence": lambda given: [
        " and ".join(given["keywords"]).upper(),
        " and ".join(given["keywords"][1:]) or "nothing",
    ],
    "keywords:frequency": lambda given: _counted(
        given["keyword"], " then ", given, "relation", "frequency"
    ),
    "keywords:forbidden_words": lambda given: [
        "un" + "un un".join(given["forbidden_words"]) + "un",
        f"There it is: {given['forbidden_words'][-1]}.",
    ],
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_words": _relation("word", " ", "relation", "num_words"),
    "length_constraints:number_sentences": _relation(
        "This is one.", " ", "relation", "num_sentences"
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "change_case:capital_word_frequency": lambda given: [
        f"here {each}"
        for each in _counted("WORD", " and ", given, "capital_relation", "capital_frequency")
    ],
    "change_case:english_capital": _fixed(SENTENCES["en"].upper(), SENTENCES["en"]),
    "change_case:english_lowercase": _fixed(SENTENCES["en"].lower(), SENTENCES["en"]),
    "detectable_content:number_placeholders": _at_least("[name] ", "num_placeholders", "[name"),
    "detectable_content:postscript": lambda given: [
        f"Dear all.\n\n{given['postscript_marker']} One thing more.",
        "Dear all. One thing more.",
    ],
    "detectable_format:number_bullet_lists": lambda given: [
        "* point\n" * given["num_bullets"],
        "- point\n" * (given["num_bullets"] + 1),
    ],
    "detectable_format:constrained_response": _fixed(
        "My answer is maybe.", "My answer is that I do not know."
    ),
    "detectable_format:number_highlighted_sections": _at_least(
        "*part* and ", "num_highlights", "** **"
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _fixed(
        '```json\n{"answer": [1, 2]}\n```', 'The answer is {"answer": [1, 2]}'
    ),
    "detectable_format:title": _fixed("<<Joy>>\nSome words.", "Joy\nSome << >> words."),
    "combination:repeat_prompt": lambda given: [
        f"{given['prompt_to_repeat']}\nHere it is.",
        f"Here it is.\n{given['prompt_to_repeat']}",
    ],
    "combination:two_responses": _fixed("One.\n******\nAnother.", "One.\n******\nOne."),
    "startend:end_checker": lambda given: [
        f"Some words. {given['end_phrase']}",
        f"{given['end_phrase']} Some words.",
    ],
    "startend:quotation": _fixed('"Some words."', '"Some words."!'),
    "punctuation:no_comma": _fixed("Some words and more.", "Some words, and more."),
}


def holding_answer(name: str, arguments: Arguments) -> str:
    """An answer that holds the constraint."""
    return _WRITERS[name](arguments)[0]


def breaking_answer(name: str, arguments: Arguments) -> str:
    """An answer that breaks it."""
    return _WRITERS[name](arguments)[1]
