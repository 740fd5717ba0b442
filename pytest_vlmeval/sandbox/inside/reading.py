"""The reader: which option, or yes or no, an answer names unmistakably.

The corrected scoring and users' tables read answers and judges' replies by it,
in place of ms-vlmeval's rules. It looks at the evidence from the strongest to the
weakest: a box around the answer, a letter or an option's text alone, a sentence that
says what the answer is, a letter at the beginning or at the end, and at last the one
option whose text is in the answer word for word. What speaks for two options, or is
negated, is not read: an answer that nobody can mistake is worth more than a guess.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

# Of longer texts the beginning and the end are read.
HEAD, TAIL = 4_000, 16_000
# What MMMU's authors leave out around an answer, and how many words are few to them.
_AROUND = " \n\t,.!?;:'"
FEW_WORDS = 5

_SHAPES = ("<wide>", "<narrow>", "<font>", "<circle>")
_STRAIGHT = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2212: "-"}
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_TOKENS = re.compile(
    r"<\|[^|<>\n]{0,60}\|>|</?s>|<(?:eos|bos|pad|unk)>|\[(?:EOS|BOS|PAD)\]"
    r"|<(?:start|end)_of_(?:turn|utterance)>",
    re.IGNORECASE,
)
_BOXES = (
    ("<|begin_of_box|>", "<|end_of_box|>"),
    ("<answer>", "</answer>"),
)
# Servers leave out the last sign, or all of it, where a reply stops at such a mark.
_BOX_MARKS = re.compile(
    r"</?answer>|</answer$|<\|(?:begin|end)_of_box\|(?:>|$)", re.IGNORECASE
)
_KEYS = {
    "answer",
    "final_answer",
    "final answer",
    "correct_answer",
    "correct answer",
    "option",
    "choice",
    "答案",
    "选项",
}
_LATEX = re.compile(
    r"\\(?:boxed|text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|rm|bf)"
    r"[ ]?\{([^{}]*)\}"
)
# "$" before a price is no LaTeX.
_MATHS = re.compile(r"(\$\$?)([^$\n]*)\1(?!\d)")
_BRACKETS = re.compile(r"\\[()\[\]]")
_ESCAPED = re.compile(r"\\([%$#&_])")
_STRESSED = (
    re.compile(r"(?<![A-Za-z0-9*])(\*{1,3})(?![\s*])([^*\n]*[^*\s])\1(?![A-Za-z0-9*])"),
    re.compile(r"(?<![A-Za-z0-9_])(_{1,3})(?![\s_])([^_\n]*[^_\s])\1(?![A-Za-z0-9_])"),
    re.compile(r"<(b|i|u|p|em|strong|span|div|mark)>([^<>]*)</\1>", re.IGNORECASE),
)
_MARKS = re.compile(
    r"```(?:\w*(?=\n))?|`|(?<![\w)*])\*\*+|\*\*+(?![\w(*])|^(?:#+|\*) "
    # A quotation; before a number it is a relation.
    r"|^>+ (?=[(\[*]*[A-Z])",
    re.MULTILINE,
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]|\.\d{3}(?!\d))")
_ENDS = ".,;:。、 \n"
_QUOTES = "\"'「」『』《》«»"
_CLOSING = {"「": "」", "『": "』", "《": "》", "«": "»"}

_OPEN = r"[(\[{<【「『《〈«\"' ]{0,6}"
_CLOSE = r"[)\]}>】」』》〉»\"' ]{0,6}"
# What a letter that is a part of a word has beside it.
_WORD = "[A-Za-z0-9_À-ɏ'-]"
_IS = r"(?:is|was|will be|would be|should be|must be|has to be)"
_LONE = re.compile(
    rf"(?:[✅✔☑✓]\ufe0f? ?)?{_OPEN}(?:(?:(?:the|my|final|correct|right|best) )*"
    rf"(?:option|choice|answer|letter|ans\.?)(?: {_IS})?[ :=]*"
    r"|(?:正确|最终|参考)?(?:答案|选项|选择|选)】?(?:是|为)?[ :=]*)?"
    rf"{_OPEN}(?P<letter>[A-Z]){_CLOSE}(?:选项|项)?{_CLOSE}"
    rf"[.,;:!。、… ]*{_CLOSE}(?: ?[✅✔☑✓]\ufe0f?)?",
    re.IGNORECASE,
)
_LED = re.compile(
    rf"{_OPEN}(?P<letter>[A-Z])"
    rf"(?P<mark>{_CLOSE}(?:[.:,、。-]|[–—])?[ \n]*)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
# What says that the answer follows.
_CUE = re.compile(
    r"\b(?:answer|response)(?: letter)?(?: to [a-z ]{1,30})? ?"
    rf"(?:{_IS}\b|[:=]|[-=–]>|→)"
    rf"|\b(?:correct|right|best|final|my) (?:option|choice|answer|letter)"
    rf"(?: {_IS}\b| ?[:=]| ?[-=–]>| ?→)?"
    rf"|(?<!each )(?<!every )(?<!other )\b(?:option|choice)(?: {_IS}\b| ?[:=])"
    r"|\b(?:I|we)(?:'d|'ll|'m| am| would| will| have to)? "
    r"(?:choose|select|pick|say|think|go with|going with|opt for|answer)"
    r"(?: (?:it is|it's))?\b"
    r"|\bans(?:\.|[ ]?[:=])|【(?:正确|最终|参考)?答案】"
    r"|(?:答案|回答|正确选项)(?:应该|应当|应|就|当然)?(?:是|为|选)? ?[:=]?"
    r"|选(?!项)(?:择|取)?(?:是|为)? ?[:=]?"
    r"|(?:答え|正解|解答)(?:は|[:=])|(?:정답|답)(?:은|[:=])",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"\b(?:final|therefore|thus|hence|so|in conclusion|overall)\b"
    r"|最终|因此|所以|综上|故",
    re.IGNORECASE,
)
_AFTER_CUE = re.compile(
    rf"(?: (?:clearly|definitely|obviously|certainly|indeed)\b)?"
    rf"[ :=]*\n?{_OPEN}(?:(?:option|choice|letter|选项) ?)?{_OPEN}"
    rf"(?P<letter>[A-Z])(?P<close>{_CLOSE})(?:选项|项)?",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    rf"(?<!{_WORD})[(\[]?(?P<letter>[A-Z])[)\]]?"
    rf"(?: \([^()\n]{{1,60}}\))?(?: {_IS} (?:the )?(?:\w+ly )?"
    r"(?:correct|right|best|answer)\b|(?:选项|项)?(?:是)?(?:正确|对的))",
)
# What may follow a letter or a text that is the answer.
_STOP = re.compile(
    r"[ ]*(?:$|[\n.,;:!。、()【】\[\]\"」』]|[-–—] "
    r"|(?:because|since|as|which|given|due|based|for|with|where|not|rather|instead"
    r"|因为|由于)(?![a-z]))"
)
_JOINED = re.compile(
    rf"[ ]*(?:,|/|&|\+|、||和|或|与|及|\bor\b|\band\b|\bor also\b)+ ?"
    rf"(?:or |and |option )?{_OPEN}(?P<letter>[A-Z])(?!{_WORD})(?! [a-z])"
)
_HEDGE = re.compile(
    r"\b(?:but|or|although|though|however|either|also|maybe|possibly|unless)\b"
    r"|但|或|也|不过"
)
_SENTENCE = re.compile(r"[.!?。\n](?![\w])|$")
_CLAUSE = re.compile(r"[.,;:!?。、\n()]|\b(?:but|so|therefore|thus|hence)\b|但|而是")
_NEGATED = re.compile(
    r"\b(?:not|no|never|neither|nor|without|cannot|can't|isn't|aren't|wasn't|don't"
    r"|doesn't|didn't|won't|unlikely|hardly|exclude|excludes|excluding|except|doubt"
    r"|than|instead of|wrong|incorrect|if|whether|could|might|may|perhaps|maybe"
    r"|lacks?|lacking|far from"
    r"|fail(?:s|ed)? to|opposite|contrary|absence|absent|free of|devoid|other than"
    r"|apart from|aside from|besides|unlike|refuse[sd]?|den(?:y|ies|ied)"
    r"|rul(?:e[sd]?|ing) out|eliminat(?:e[sd]?|ing)|barely|scarcely|possibly"
    r"|would have (?!to\b)|(?:i|had) thought|used to|at first|initially|anything"
    r"|unsure)\b"
    r"|n't\b|不|非|没|未|无|别|排除|而非|如果|是否|可能|也许",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[)\]\"']* ?(?:选项|项)? ?(?:(?:is|are|was|were|seems|can|does|do|has|would"
    r"|could|looks) ?(?:not|n't|be ruled|been ruled|ruled|incorrect|wrong|false"
    r"|impossible|unlikely|also|absent|missing|excluded|eliminated|out of)\b"
    r"|,? (?:or|i (?:guess|think|suppose)) (?:maybe |perhaps |possibly )?not\b"
    r"|(?:isn't|aren't|wasn't|can't|cannot|doesn't)\b|不|错|有误|并非|被排除)",
    re.IGNORECASE,
)
_NOT_LETTER = re.compile(
    r"(?:(?:\b(?i:not|nor|rather than|instead of|than)|n't)(?: (?:option|choice))? "
    r"|(?:不是|不选|不为|而非|非|排除)(?:选项)?)"
    rf"[(\[]?[A-Z][)\]]?(?!{_WORD})"
)
_WRONG_LETTER = re.compile(
    rf"(?:\b(?i:options?|choices?) )?(?<!{_WORD})[(\[]?[A-Z][)\]]?"
    r"(?:(?:, ?(?:and |or )?| and | or )[(\[]?[A-Z][)\]]?)*"
    r" (?:is|are) (?:all |both |clearly |also |therefore )?(?:incorrect|wrong|false"
    r"|not (?:correct|right|true)|ruled out|eliminated)\b"
)
_REMAINS = re.compile(
    r"(?P<before>^|\b(?:is|be) |[是为])[ ,]*(?:but|rather|而是) *(?=\W?[A-Z]\b)"
)
# "no wait", "actually": what was said before is taken back.
_REVISED = re.compile(
    r"[.!?;,:…。\n)–—-] ?(?:(?:but|oh|hmm+|no|ah|well|or|and),? )*"
    r"(?:wait|actually|correction|corrected|hold on|scratch that|hmm+|oops|sorry"
    r"|on (?:second thoughts?|reflection|closer)|let me (?:re[a-z-]+|correct|check)"
    r"|i (?:was|am) (?:wrong|mistaken)|i stand corrected|i mean|no[,.:])(?![a-z])"
    r"|等等|等一下|更正|不对[,。]|其实|重新",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"wait|correct|hold|scratch|hmm|oops|second|reflection|wrong|mistaken|stand|等|更正|不对",
    re.IGNORECASE,
)
# A sentence that takes a second option for right, too.
_SECOND = re.compile(
    r"^ ?(?:but|however|although|though|or|still|alternatively|then again)\b"
    r"|\b(?:also|equally)(?: be)?(?: an?)? (?:right|correct|fine|possible|plausible|ok"
    r"|okay|acceptable|valid|answer|true|work)\b"
    r"|\b(?:could|might|may) (?:also |equally |well )?be\b|^ ?(?:但|不过|然而|或)",
    re.IGNORECASE,
)
_LATER_DOUBT = re.compile(
    r"[ ,;.]*(?:but|however|yet|although|though|except|unless)\b|[ ,。]*(?:但|不过)",
)
_BESIDE = re.compile(
    r"\b(?:next to|beside|near|behind|in front of|left of|right of|above|below|under"
    r"|over|opposite|between) (?:the |an? )?$"
)
_ANYTHING_BUT = re.compile(
    r"\b(?:anything|everything|all|any|none) but (?:the |an? )?$"
)
_MENTION = re.compile(rf"(?<!{_WORD})(?<!\.)[A-Z](?!{_WORD})(?!\.[A-Za-z])")
_LAST = re.compile(
    r"(?:(?:\b(?i:option|choice|is|it's|be|say|so|therefore|thus|hence|choose|pick|select)"
    r"|[:=→]|是|为|选|选项) ?[(\[\"']*|[(\[【])"
    rf"(?P<letter>[A-Z]){_CLOSE}[.,;!。 \n]*"
)

_YES = (
    "yes|yeah|yep|yup|true|correct|affirmative|of course|certainly|definitely|"
    "absolutely|i think so|i believe so|it is|it does|there is|there are|"
    "是|是的|对|对的|正确|没错|有|有的|"
    "可以|能|会|真|はい"
)
_NO = (
    "no|nope|nah|not|false|incorrect|negative|not at all|no way|"
    "of course not|certainly not|"
    "definitely not|absolutely not|not really|it is not|it isn't|it's not|it does not|"
    "it doesn't|there is not|there isn't|there is none|there are not|there aren't|"
    "there are none|none|not true|not correct|not right|i don't think so|"
    "i do not think so|i don't believe so|i do not believe so|"
    "否|否定|不|不是|不是的|不对|不正确|不会|不能|不可以|错|错误|"
    "错的|没有|并不是|并非|假|いいえ"
)
_WORDS = dict.fromkeys(_YES.split("|"), "Yes") | dict.fromkeys(_NO.split("|"), "No")
_LEADING = re.compile(
    r"(?P<word>yes|yeah|yep|yup|no|nope|not at all|of course not|certainly not"
    r"|definitely not|absolutely not|是的|是|对的|对|没错|否|不是的|不是|不对|没有|不)"
    r"(?:[ ]*(?:$|[\n.,;:!。、()-]|[–—]))",
)
_ANSWER_IS = re.compile(
    rf"(?:\banswer ?(?:{_IS}|[:=])|答案(?:是|为)?[ :=]*)[ :\"']*"
    r"(?P<word>yes|no|true|false|是的?|对|正确|否|不是|不对|错误?)"
    r"(?=[ ]*(?:$|[\n.,;:!。、\"']))"
)
_OPPOSITE = {
    "Yes": re.compile(r"(?<![\w'-])(?:no|nope)(?=[ ]*(?:$|[\n.,;:!。、/)]))"),
    "No": re.compile(r"(?<![\w'-])(?:yes|yeah)(?![\w'-])"),
}
_YES_OR_NO = re.compile(r"(?<![\w'-])(?:yes|no)(?![\w'-])")
_ASKED = re.compile(r"(?<![\w'-])(?:yes|no)[\"')]* ?\?")
_ABSENT = re.compile(
    r"(?:[a-z']+ ){1,4}(?:is|are) ?(?:not|n't) (?:present|visible|shown)"
    r"(?: in (?:the|this) (?:image|picture|photo))?"
    r"|(?:图中|图片中|图里|画面中|图像中)?(?:没有|不存在)[\u3400-\u9fff]{1,8}"
)
_PRESENT = re.compile(
    r"(?:图中|图片中|图里|画面中|图像中)?有"
    r"(?![没无可点些时])(?:(?![没不吗否但或无么])[\u3400-\u9fff]){1,8}"
)
_EITHER = re.compile(
    r"\b(?:yes)\b ?(?:/|,|and|or) ?\bno\b|\bno\b ?(?:/|and|or) ?\byes\b"
)
# Where "no" is not the answer.
_IDIOM = re.compile(
    r"\bno (?:doubt|question|problem|idea|matter|longer|less|more|fewer|wonder|need|way"
    r"|one|information|clear|sign|evidence|definite|answer|other|further|image|picture"
    r"|comment|clue|opinion|response|data|reason|guarantee|certainty)"
    r"\b|\bno\. ?\d|\bwithout (?:a |any )?doubt\b"
)


_ARTICLES = ("a", "an", "the")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()
    )
}
_ABBREVIATED = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?!\w)")
# Marks that stand between words, and what is left of them.
_SENTENCE_MARKS = (
    (re.compile(r"(?<![^ ])\"([^\"]*[^\" ])\"(?![^ .,;:!?])"), r"\1"),
    (re.compile(r"(?<![^ ])\(([^\W\d_][^()]*[^\W\d_])\)(?![^ .,;:!?])"), r"\1"),
    (re.compile(r"(?<=[^\W\d_]{2})[.,;:!](?= )|(?<=[\w)])[,;](?= )"), ""),
    (re.compile(r"(?<=[^\W\d_]{2})[,;](?=[^\W\d_]{2})"), " "),
    (
        re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_])|(?<=[^\W\d_])-(?=[^\W\d_]{2})"),
        " ",
    ),
    # ".5" is 0.5.
    (re.compile(r"(?<![\w.)])\.(?=\d)"), "0."),
)


class _Option(NamedTuple):
    """An option's text without quotes and full stop, and as it is compared.

    Both are "" for a letter that stands for no text.
    """

    bare: str
    text: str


# By their letters.
_Options = Mapping[str, _Option]


class _AmbiguousError(Exception):
    """The text speaks for more than one option."""


@lru_cache(maxsize=256)
def _option(text: str) -> _Option:
    """Return an option's text as it is compared; a table has the same ones often."""
    return _Option(_bare(text) if text else "", _plain(text))


def read_option(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a text names; None if it names none.

    `options` are texts by their letters, "" for a letter that stands for no text.
    """
    whole = _clean(text)
    known = {letter: _option(each) for letter, each in options.items()}
    try:
        for box in _boxes(whole):
            found = _read(_tidy(box), known)
            if found is not None:
                boxes = {_read(_tidy(each), known) for each in _boxes(whole)}
                return found if boxes <= {found, None} else None
        return _read(_tidy(whole), known)
    except _AmbiguousError:
        return None


def last_named_option(text: str, options: Mapping[str, object]) -> str | None:
    """Return the option that a text names last; None if it names none.

    As MMMU's authors read an answer (mmmu/utils/eval_utils.py of MMMU-Benchmark/MMMU),
    but for their random choice where nothing is named: by letters in brackets, else by
    letters between blanks, else, in more than five words, by the options' texts. It may
    be a guess, as what is denied counts too.
    """
    said = f" {text.strip(_AROUND)} "
    folded = said.lower()
    named = {letter: said.rfind(f"({letter})") for letter in options}
    if max(named.values(), default=-1) < 0:
        named = {letter: said.rfind(f" {letter} ") for letter in options}
    if max(named.values(), default=-1) < 0 and len(said.split()) > FEW_WORDS:
        named = {
            letter: folded.rfind(str(option).lower())
            for letter, option in options.items()
            if option
        }
    last = max(named, key=lambda letter: named[letter], default=None)
    return last if last is not None and named[last] >= 0 else None


def nearest_option(text: str, options: Mapping[str, str]) -> str:
    """Return the letter of the option that is nearest to a text by edit distance.

    Of several it is the first. There always is one, so it may be a guess.
    """
    text = text[:HEAD]
    return min(options, key=lambda letter: _distance(text, options[letter][:HEAD]))


def _distance(one: str, other: str) -> int:
    """Return how many signs have to be added, left out or replaced (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, sign in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, another in enumerate(other, 1):
            kept = before + (sign != another)
            before = row[place]
            row[place] = min(kept, before + 1, row[place - 1] + 1)
    return row[-1]


def read_yes_no(text: str) -> str | None:
    """Return "Yes" or "No" if a text says one of them; None otherwise."""
    whole = _clean(text)
    boxes = {_yes_no(_tidy(box)) for box in _boxes(whole)} - {None}
    if boxes:
        return boxes.pop() if len(boxes) == 1 else None
    return _yes_no(_tidy(whole))


def bare_text(text: str) -> str:
    """Return an answer without what stands around it: boxes, tokens, marks."""
    whole = _clean(text)
    boxes = dict.fromkeys(_tidy(box) for box in _boxes(whole))
    return next(iter(boxes)) if len(boxes) == 1 else _tidy(whole)


def same_text(text: str, reference: str) -> bool:
    """Return whether an answer is a reference, but for what `comparable` leaves out."""
    known = comparable(reference)
    return bool(known) and comparable(bare_text(text)) == known


def comparable(text: str) -> str:
    """Return a text as it is compared with a reference.

    Case, width, articles, quotes around words and the marks of sentences are left out,
    and numbers up to ten have one spelling. Whatever tells one value from another is
    kept: signs, relations, operators, units, and points and commas within numbers.
    """
    spelled = _ABBREVIATED.sub(lambda each: each[0].replace(".", ""), text)
    folded = _plain(spelled)
    for pattern, kept in _SENTENCE_MARKS:
        folded = pattern.sub(kept, folded)
    words = [_NUMBER_WORDS.get(each, each) for each in folded.split()]
    return " ".join(each for each in words if each not in _ARTICLES) or folded


def has_words(text: str, reference: str) -> bool:
    """Return whether the words of a reference stand in a text, in their order.

    An empty reference stands in none. In a script that is written without spaces
    between words, anything may stand beside it.
    """
    folded, wanted = (" ".join(_fold(each).split()) for each in (text, reference))
    place = folded.find(wanted) if wanted else -1
    while place >= 0:
        end = place + len(wanted)
        if _starts_at(folded, place) and _ends_at(folded, end):
            return True
        place = folded.find(wanted, place + 1)
    return False


def _clean(text: str) -> str:
    """Replace letters of other shapes by the usual ones; drop what is invisible."""
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n \n{text[-TAIL:]}"
    if not text.isascii():
        text = unicodedata.normalize(
            "NFC",
            "".join(
                unicodedata.normalize("NFKC", sign)
                if unicodedata.decomposition(sign).startswith(_SHAPES)
                else sign
                for sign in _INVISIBLE.sub("", text).translate(_STRAIGHT)
            ),
        )
    text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    return re.sub(r"[^\S\n]+", " ", text.replace("\r", "\n"))


def _tidy(text: str) -> str:
    """Leave out tokens, and the marks of Markdown and LaTeX."""
    text = _TOKENS.sub(" ", _BOX_MARKS.sub(" ", text))
    for _ in range(4):
        shorter = _LATEX.sub(r"\1", text)
        if shorter == text:
            break
        text = shorter
    text = _ESCAPED.sub(r"\1", _BRACKETS.sub("", _MATHS.sub(r"\2", text)))
    for _ in range(3):
        for sign, stressed in zip("*_<", _STRESSED, strict=True):
            # Most texts have none of them, and a search of each letter takes long.
            if sign in text:
                text = stressed.sub(r"\2", text)
    if any(sign in text for sign in "`*#>"):
        text = _MARKS.sub("", text)
    return re.sub(r" +", " ", re.sub(r"\n[\n ]*", "\n", text)).strip()


def _boxes(text: str) -> list[str]:
    """Return what is in the places that models are told to put answers into."""
    found = []
    for opening, closing in _BOXES:
        found += _between(text, opening, closing)
    start = text.find("\\boxed{")
    while start >= 0:
        start += len("\\boxed{")
        depth, end = 1, start
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if not depth:
            found.append(text[start : end - 1])
        start = text.find("\\boxed{", end)
    found += [str(value) for value in _json_answers(text)]
    return found


def _between(text: str, opening: str, closing: str) -> list[str]:
    found, lower, end = [], text.lower(), 0
    while len(lower) == len(text):
        start = lower.find(opening, end)
        stop = lower.find(closing, start)
        if start < 0 or stop < 0:
            break
        found.append(text[start + len(opening) : stop])
        end = stop + len(closing)
    return found


def _json_answers(text: str) -> Iterable[object]:
    for each in re.findall(r"\{[^{}]*\}", text):
        try:
            value = json.loads(each)
        except ValueError:
            continue
        for key, said in value.items():
            if key.strip().lower() in _KEYS:
                several = said if isinstance(said, list) else [said]
                yield several[0] if len(several) == 1 else said


def _fold(text: str) -> str:
    """Return a text in lower case, letter by letter."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(s.lower() if len(s.lower()) == 1 else s for s in text)


def _plain(text: str) -> str:
    """Return a text as it is compared with others."""
    bare = _fold(_bare(text))
    return re.sub(r"^(?:a|an|the) (?=\w)", "", bare)


def _bare(text: str) -> str:
    """Return a text without quotes around it and the marks that end a sentence."""
    tidy = " ".join(_tidy(_clean(text)).split())
    bare = _unquoted(_ended(_unquoted(tidy)))
    return _ended(bare) or tidy


def _ended(text: str) -> str:
    """Leave out what ends a sentence; "3!" and "x!" are no sentences."""
    text = text.rstrip(_ENDS)
    if not text.endswith("!"):
        return text
    return re.sub(r"(?<=[^\W\d_]{2})!+$|(?<=[\u3040-\u9fff])!+$", "", text)


def _unquoted(text: str) -> str:
    """Leave out quotes around a text, but not "x'", or the mark of inches."""
    quoted = len(text) > 2 and _QUOTES.find(text[0]) >= 0
    if quoted and text[-1] == _CLOSING.get(text[0], text[0]):
        return text[1:-1].strip()
    return text


def _read(text: str, options: _Options) -> str | None:
    alone = _alone(text, options)
    if alone is not None:
        return alone
    texts = {letter: option.text for letter, option in options.items() if option.text}
    words = [_WORDS.get(each) for each in texts.values()]
    if len(texts) == 2 and set(words) == {"Yes", "No"}:
        said = _yes_no(text)
        return next((each for each in texts if _WORDS[texts[each]] == said), None)
    # A question about letters: which of them is meant only a letter alone says.
    lettered = any(
        each.upper() in options and each.upper() != letter
        for letter, each in texts.items()
    )
    if not lettered:
        found = _explained(text, options)
        if found is not None:
            return found
    text = _WRONG_LETTER.sub("", _NOT_LETTER.sub(" ", text))
    text = _REMAINS.sub(r"\g<before>", re.sub(r"[(\[] *(?:[)\]]|$)", "", text)).strip(
        " ,;\n"
    )
    alone = _alone(text, options)
    if alone is not None:
        return alone
    mentioned = _mentioned(text, options)
    found = None
    if not lettered:
        found = _stated(text, options) or _first_or_last(text, options, mentioned)
    if found is None:
        found = _only_text(text, options)
        if found is not None and mentioned - {found}:
            return None
    return None if found is None or _is_revised(text, found, options) else found


def _explained(text: str, options: _Options) -> str | None:
    """Read a first line that is an answer, and the lines below explain it."""
    first, _, rest = text.partition("\n")
    letter = _alone(first, options)
    if letter is None or not rest:
        return None
    for line in rest.split("\n"):
        other = _alone(line, options) or _leading(line, options)
        if other not in (None, letter):
            raise _AmbiguousError
    if _stated(rest, options) not in (None, letter):
        raise _AmbiguousError
    sentences = re.split(r"[.!?。\n](?!\w)", rest)
    if any(_adds_another(each, letter, options) for each in sentences):
        raise _AmbiguousError
    return None if _is_revised(text, letter, options) else letter


def _is_revised(text: str, letter: str, options: _Options) -> bool:
    """Return whether a text takes its answer back, and does not end with the same."""
    marks = list(_REVISED.finditer(text))
    if not marks or not _speaks(text[: marks[-1].start()], options):
        return False
    after = text[marks[-1].end() :]
    try:
        if _stated(after, options) == letter:
            return False
    except _AmbiguousError:
        return True
    named = _speaks(after, options)
    return named != {letter} and bool(named or _TAKEN_BACK.search(marks[-1][0]))


def _speaks(text: str, options: _Options) -> set[str]:
    return _mentioned(text, options) | _texts_in(text, options)


def _adds_another(sentence: str, letter: str, options: _Options) -> bool:
    if not _SECOND.search(sentence):
        return False
    sentence = _WRONG_LETTER.sub("", _NOT_LETTER.sub(" ", sentence))
    others = set()
    for match in _MENTION.finditer(sentence):
        denied = _DENIED.match(sentence, match.end())
        if denied and "also" not in denied[0]:
            continue
        others |= _mentioned(sentence, options) & {match[0]}
    return bool((others | _texts_in(sentence, options)) - {letter})


def _alone(text: str, options: _Options) -> str | None:
    """Read a text that is a letter, an option's text, or both."""
    lone = _LONE.fullmatch(text)
    if lone and lone["letter"].upper() in options:
        return lone["letter"].upper()
    bare = _bare(text)
    exact = [letter for letter in options if bare and options[letter].bare == bare]
    if len(exact) == 1:
        return exact[0]
    plain = _plain(text)
    equal = {letter for letter in options if plain and options[letter].text == plain}
    if len(equal) > 1:
        raise _AmbiguousError
    if equal:
        return equal.pop()
    led = _LED.fullmatch(text)
    if led is None or led["letter"].upper() not in options:
        return None
    letter, rest = led["letter"].upper(), _plain(led["rest"])
    equal = {letter for letter in options if rest and options[letter].text == rest}
    if letter in equal and led["mark"]:
        return letter
    if equal and led["mark"].strip():
        raise _AmbiguousError
    return None


def _mentioned(text: str, options: _Options) -> set[str]:
    """Return the letters of options that stand in a text by themselves."""
    found = set()
    for match in _MENTION.finditer(text):
        rest = text[match.end() : match.end() + 2]
        # The article, and the pronoun.
        prose = len(rest) == 2 and rest[0] == " " and rest[1].islower()
        if match[0] in options and not (match[0] in "AI" and prose):
            found.add(match[0])
    return found


def _stated(text: str, options: _Options) -> str | None:
    """Read the sentences that say what the answer is."""
    folded = _fold(text)
    found: dict[str, bool] = {}
    for start, end, letter in _statements(text, folded, options):
        before = text[max(0, start - 80) : start]
        clause = _CLAUSE.split(before)[-1]
        sentence = re.split(r"[.!?。\n]", before)[-1]
        if _NEGATED.search(clause) or _DENIED.match(text, end):
            continue
        joined = _JOINED.match(text, end)
        if joined and joined["letter"] in options and joined["letter"] != letter:
            raise _AmbiguousError
        stop = _SENTENCE.search(text, end)
        assert stop is not None
        if stop[0] == "?":
            continue
        rest = text[end : stop.start()]
        beyond = text[stop.end() :]
        later = re.split(r"[.!?。\n](?!\w)", beyond)[0]
        if _adds_another(later, letter, options):
            raise _AmbiguousError
        if _HEDGE.search(rest) and _mentioned(rest, options) - {letter}:
            raise _AmbiguousError
        final = bool(_FINAL.search(sentence) or _FINAL.search(text[start:end]))
        found[letter] = found.get(letter, False) or final
    if len(found) > 1:
        found = {letter: True for letter, final in found.items() if final}
        if len(found) != 1:
            raise _AmbiguousError
    return next(iter(found), None)


def _statements(
    text: str, folded: str, options: _Options
) -> Iterable[tuple[int, int, str]]:
    for match in _CORRECT.finditer(text):
        if match["letter"] in options:
            yield match.start(), match.end(), match["letter"]
    for cue in _CUE.finditer(text):
        letter = _AFTER_CUE.match(text, cue.end())
        if letter and _is_letter(text, letter, options):
            named = letter["letter"].upper()
            yield (
                cue.start(),
                _end_of_option(folded, letter.end(), named, options),
                named,
            )
            continue
        option = _text_at(folded, cue.end(), options)
        if option is not None:
            yield cue.start(), *option


def _end_of_option(folded: str, end: int, letter: str, options: _Options) -> int:
    """Return where an option ends whose text follows its letter, "or" in it or not."""
    mark = re.compile(r"[ .:、,)\-–—]*").match(folded, end)
    assert mark is not None
    words = options[letter].text
    beyond = mark.end() + len(words)
    if words and folded.startswith(words, mark.end()) and _ends_at(folded, beyond):
        # The full stop of an abbreviation, which a comma follows.
        return beyond + (folded[beyond : beyond + 2] in (".,", ".;"))
    return end


def _is_letter(text: str, found: re.Match[str], options: _Options) -> bool:
    """Return whether what follows a cue is an option's letter, not a word like "a"."""
    letter = found["letter"].upper()
    if letter not in options:
        return False
    rest = text[found.end() :]
    if text[found.start("letter") - 1 : found.start("letter")].isalnum() and (
        text[found.start("letter") - 1].isascii()
    ):
        return False
    if found["letter"].isupper() and rest[:1] and _script(rest[0]) == "run":
        return True
    if found["letter"].islower() and found["close"] == " ":
        return False
    own = options[letter].text
    follows = _fold(rest).lstrip(" .:、,)-–—")
    if own and follows.startswith(own) and _ends_at(follows, len(own)):
        return True
    if found["close"].endswith(" "):
        rest = f" {rest}"
    stop = _STOP.match(_fold(rest))
    return bool(stop) and not re.match(r"\.\w", rest)


def _text_at(folded: str, start: int, options: _Options) -> tuple[int, str] | None:
    """Read the text of an option that a sentence says is the answer."""
    begin = re.compile(rf"[ :=]*\n?{_OPEN}(?:(?:a|an|the) )?").match(folded, start)
    assert begin is not None
    place = begin.end()
    fitting = {
        letter: option.text
        for letter, option in options.items()
        if option.text
        and folded.startswith(option.text, place)
        and _ends_at(folded, place + len(option.text))
        and _STOP.match(folded, place + len(option.text))
    }
    if not fitting:
        return None
    longest = max(fitting, key=lambda letter: len(fitting[letter]))
    if list(fitting.values()).count(fitting[longest]) > 1:
        raise _AmbiguousError
    return place + len(fitting[longest]), longest


def _first_or_last(text: str, options: _Options, mentioned: set[str]) -> str | None:
    """Read a letter with which a text begins or ends, if it has no other."""
    lines = text.split("\n")
    leading = [letter for line in lines if (letter := _leading(line, options))]
    lone = _LONE.fullmatch(lines[-1])
    if lone and lone["letter"].isupper() and lone["letter"] in options:
        leading.append(lone["letter"])
    found = set(leading)
    if not found and (last := _LAST.search(text)) and last.end() == len(text):
        clause = _CLAUSE.split(text[max(0, last.start() - 80) : last.end("letter") - 1])
        if not _NEGATED.search(next((p for p in reversed(clause) if p.strip()), "")):
            found = {last["letter"]} & options.keys()
    if not found:
        return None
    if len(found | mentioned) > 1:
        raise _AmbiguousError
    (letter,) = found
    if leading and not lone and not _leading(lines[0], options):
        return None  # a line between others
    named = _texts_in(text, options)
    if named and letter not in named:
        raise _AmbiguousError
    # "A:" is also how an answer to "Q:" begins.
    short = re.fullmatch(rf"{_OPEN}A ?: ?[\u3400-\u9fff]{{1,8}}[.。]?", text)
    if re.match(rf"{_OPEN}A ?:", lines[0]) and letter not in named and not short:
        return None
    return letter


def _leading(line: str, options: _Options) -> str | None:
    match = re.match(
        r" ?(?:[-•] )?(?:(?P<open>[(\[【「\"'])? ?(?:(?:option|choice) )?"
        r"(?P<letter>[A-Za-z])(?P<close> ?[)\]】」\"'])?)"
        r"(?P<mark>[.:、,。](?= |$|[^\x00-\x7f])|[ ]?[-–—](?= )|$)?",
        line,
    )
    if match is None or match["letter"].upper() not in options:
        return None
    rest = line[match.end() :]
    closed = bool(match["close"]) and not (rest[:1].isalnum() and rest[0].isascii())
    if closed or match["mark"] is not None:
        return match["letter"].upper()
    # A letter and its option's text without any mark between.
    own = options[match["letter"]].text if match["letter"] in options else ""
    follows = _fold(rest).lstrip()
    if own and rest[:1] == " " and follows.startswith(own):
        return match["letter"] if _ends_at(follows, len(own)) else None
    return None


def _only_text(text: str, options: _Options) -> str | None:
    """Read the only option whose text is in an answer, word for word."""
    # As ms-vlmeval: a long answer that has the words somewhere does not name them.
    if len(text) > max(60, 2 * sum(len(each.text) for each in options.values())):
        return None
    found = _texts_in(text, options)
    if len(found) != 1:
        return None
    (letter,) = found
    words = options[letter].text
    folded = " ".join(_fold(text).split())
    end = folded.rfind(words) + len(words)
    later = _SENTENCE.search(folded, end)
    rest = folded[end : later.start()] if later else ""
    if _LATER_DOUBT.search(rest) or _LATER_DOUBT.match(folded, end):
        return None
    return letter


def _texts_in(text: str, options: _Options) -> set[str]:
    """Return the options whose texts are in an answer and not denied there."""
    folded = " ".join(_fold(text).split())
    found: set[str] = set()
    for letter in sorted(options, key=lambda letter: -len(options[letter].text)):
        words = options[letter].text
        if not words or (len(words) == 1 and words.isalpha() and words.isascii()):
            continue
        place = folded.find(words)
        while place >= 0:
            end = place + len(words)
            if _stands(folded, place, end) and not _goes_on(
                folded, end, words, options
            ):
                if not _is_denied(folded, place, end):
                    found.add(letter)
                # What is part of a longer option does not name a shorter one.
                if all(words != options[o].text for o in options if o != letter):
                    folded = folded[:place] + "\0" * len(words) + folded[end:]
            place = folded.find(words, end)
    return found


def _goes_on(folded: str, end: int, words: str, options: _Options) -> bool:
    """Return whether more belongs to an option: "3 mm" is not 3 beside "3 cm"."""
    longer = any(each.text.startswith(f"{words} ") for each in options.values())
    return longer and bool(re.match(r" \w", folded[end : end + 2]))


def _is_denied(folded: str, place: int, end: int) -> bool:
    before = folded[max(0, place - 80) : place]
    stop = _SENTENCE.search(folded, end)
    return bool(
        _NEGATED.search(_CLAUSE.split(before)[-1])
        or _ANYTHING_BUT.search(before)
        or (_BESIDE.search(before) and re.match(r" \w", folded[end:]))
        or _DENIED.match(folded, end)
        or (stop is not None and stop[0] == "?")
    )


def _script(sign: str) -> str:
    """Tell a sign of a script that is written without spaces from one with, or none."""
    if not (
        sign.isalnum() or unicodedata.category(sign).startswith("M") or sign == "_"
    ):
        return ""
    code = ord(sign)
    runs = (
        0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
        or 0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0xAC00 <= code <= 0xD7AF
        or 0x20000 <= code <= 0x3FFFF
    )
    return "run" if runs else "word"


def _ends_at(text: str, end: int) -> bool:
    if end >= len(text) or end == 0:
        return True
    last, following = text[end - 1], text[end]
    if _script(last) == "word" and _script(following) == "word":
        return False
    beyond = text[end + 1 : end + 2]
    if following in "-'" and beyond and _script(last) == _script(beyond) == "word":
        return False
    return not (
        last.isdigit()
        and (following == "%" or (following in ".,:/" and beyond.isdigit()))
    )


def _starts_at(text: str, start: int) -> bool:
    if start <= 0:
        return True
    first, before = text[start], text[start - 1]
    if _script(first) == "word" and _script(before) == "word":
        return False
    beyond = text[start - 2 : start - 1] if start > 1 else ""
    if before in "-'" and _script(first) == "word":
        return not (beyond and _script(beyond) == "word") and not first.isdigit()
    if first.isdigit() and before in "<>≤≥±+":
        return False
    return not (first.isdigit() and before in ".,:/" and beyond.isdigit())


def _stands(text: str, start: int, end: int) -> bool:
    """Return whether a text stands in another by itself: whole words, in most scripts.

    Chinese, Japanese, Korean, Thai and others are written without spaces between
    words. There a single character is part of other words, so it does not count.
    """
    if not (_starts_at(text, start) and _ends_at(text, end)):
        return False
    # A price or an angle is not the number alone.
    if text[start].isdigit() and text[:start].endswith(("$", "€", "£", "¥")):
        return False
    if text[end - 1].isdigit() and text.startswith("°", end):
        return False
    if end - start > 1 or _script(text[start]) != "run":
        return True
    before, after = text[start - 1 : start], text[end : end + 1]
    return (not after or _script(after) != "run" or after in "和与或") and (
        not before or _script(before) != "run" or before in "是为选和与或有"
    )


def _yes_no(text: str) -> str | None:
    folded = _fold(text)
    plain = " ".join(folded.split()).strip(_QUOTES + "()[]【】").rstrip(_ENDS)
    plain = plain.strip(_QUOTES + "()[]【】 ")
    if plain in _WORDS:
        return _WORDS[plain]
    if _ASKED.search(folded) or _EITHER.search(folded := _IDIOM.sub(" ", folded)):
        return None
    if _ABSENT.fullmatch(plain):
        return "No"
    if _PRESENT.fullmatch(plain):
        return "Yes"
    if any(_is_doubted(folded, each) for each in _YES_OR_NO.finditer(folded)):
        return None
    answers = list(_ANSWER_IS.finditer(folded))
    stated = {_WORDS[match["word"]] for match in answers}
    if stated:
        said = stated.pop()
        taken_back = _OPPOSITE[said].search(folded, answers[-1].end())
        return None if stated or taken_back else said
    leading = _LEADING.match(folded.lstrip(_QUOTES + "([【 "))
    if leading:
        said = _WORDS[leading["word"]]
        rest = folded.lstrip(_QUOTES + "([【 ")[leading.end() :]
        return None if _OPPOSITE[said].search(rest) else said
    # As ms-vlmeval: the only one of both words.
    words = {each[0] for each in _YES_OR_NO.finditer(folded)}
    return words.pop().capitalize() if len(words) == 1 else None


def _is_doubted(folded: str, word: re.Match[str]) -> bool:
    """Return whether a "yes" or "no" is denied or guessed where it stands."""
    clause = _CLAUSE.split(folded[max(0, word.start() - 80) : word.start()])[-1]
    return bool(_NEGATED.search(_YES_OR_NO.sub("", clause)))
