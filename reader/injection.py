"""Which texts look like instructions to a model, or imitate the form of its answers: read alone, never refused.

A miss costs little, since no answer is trusted anyway and a text can only spoil its own; a false alarm costs a call.
"""

import re
import unicodedata
from functools import lru_cache

_REGION_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a]{5}\U000e007f")  # England's is spelt in tag characters
_HIDDEN = re.compile(
    r"[\u202d\u202e]"  # turns letters round
    r"|[\U000e0000-\U000e007f]"  # tag characters: ASCII that nobody sees
    r"|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{3}"  # bytes as variation selectors
    r"|[\xad\u180e\u200b-\u200d\u2060-\u2064\ufeff]{8}"  # bits as characters without width
)
_DIRECTION = re.compile(r"[\u202a-\u202c\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")  # whose writers need such characters

# What Cyrillic, Greek and odd Latin letters pass for, once they are lower case.
_LOOK_ALIKES = str.maketrans("авекмнорстухіјѕԁαβεικνορτυχıɡɑ", "abekmhopctyxijsdabeikvoptuxiga")


def _any_of(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_VERDICT = _any_of(
    r"positi[vf]\w*|negati[vf]\w*|neutr[aeo]\w*|olumlu|olumsuz|pozytywn\w*|negatywn\w*",
    r"позитивн\w*|положительн\w*|негативн\w*|отрицательн\w*|нейтральн\w*",
)
_VERDICT_UNSPACED = "(?:正面|积极|積極|负面|負面|中性|ポジティブ|肯定的|ネガティブ|긍정|부정)"
_MACHINE = _any_of(
    r"(?:language )?model\w*|assist[ae]n\w*|asisten\w*|ai|ki|(?:chat)?bot|classifier|annotator|judge|dan|jailbroken",
    r"unrestricted|developer mode|модель|ассистент|бот",
)
_EARLIER = "(?:previous|prior|above|earlier|preceding|system|initial|original|other|all|any|your|every|these)"
_ITEMS = "(?:items?|results?|texts?|entries|ids?|records?|conversations?)"
_JUDGE = "(?:label|classify|rate|mark|score|tag|categori[sz]e|grade|annotate|judge|treat|count)"
_JUDGED = "(?:labell?ed|classified|rated|marked|scored|tagged|graded|judged|treated|counted)"
_JUDGE_ABROAD = _any_of(
    r"clasifi\w+|etiquet\w+|calific\w+|marca|class[eé]z?|marquez?|notez|bewerte\w*|klassifizier\w*|markiere\w*|classifi\w+",
    r"etichetta\w*|valuta|rotul\w+|avali\w+|oznacz|sklasyfikuj|oceń|markeer|beoordeel",
    r"оцени\w*|пометь\w*|отметь\w*|классифицируй\w*",
)
_FORGET_ABROAD = (  # forget, and what, a language a line; either may come first
    (r"ignor[aeo]\w*|olvid[ae]\w*|omit[ae]\w*|descart[ae]\w*", r"instrucciones|indicaciones|lo anterior"),
    (r"(?:ignor|oubli)ez? (?:toutes )?(?:les|ces|tes|vos)|ne (?:tiens|tenez) pas compte", r"instructions|consignes"),
    (r"ignorez?|oubliez?", r"tout ce qui précède"),
    (r"ignorier\w*|vergiss|vergessen sie|missachte\w*", r"anweisungen|instruktionen|vorgaben|befehle|aufgaben"),
    (r"ignora\w*|dimentica\w*|trascura\w*", r"istruzioni|indicazioni"),
    (r"ignor[ae]\w*|esqueç[ae]\w*|desconsider[ae]\w*", r"instruções|orientações"),
    (r"negeer|vergeet", r"instructies|opdrachten|aanwijzingen"),
    (r"ignorera|ignorer|glöm|glem", r"instru[ck]\w*"),
    (r"z?ignoruj|zapomnij|pomiń", r"instrukcj\w*|polece\w*"),
    (r"(?:про)?игнорируй\w*|забудь\w*|ігноруй\w*", r"инструкци\w*|указани\w*|інструкці\w*|вказівк\w*"),
    (r"yok ?say\w*|görmezden gel\w*|unut\w*|dikkate alma\w*", r"talimat\w*|komut\w*"),
    (r"abaikan|lupakan", r"instruksi|perintah"),
    (r"bỏ qua|quên", r"hướng dẫn|chỉ thị|lệnh"),
    (r"تجاهل\w*", r"\w*تعليمات|\w*أوامر"),
    (r"अनदेखा|नज़रअंदाज़|भूल", r"निर्देश\w*"),
)
# Sought in the words alone, with one blank between them.
_ASKS = _any_of(
    rf"(?:ignore|disregard|forget|override|bypass|discard) (?:\w+ ){{0,2}}{_EARLIER} (?:\w+ ){{0,3}}"
    r"(?:instructions?|prompts?|guidelines|directives)",
    r"(?:ignore|disregard|forget|override) (?:\w+ ){0,3}(?:previous|prior|preceding|system) (?:rules|tasks?)",
    r"(?:ignore|disregard|forget) (?:the|all|any) (?:previous|above|prior) (?:text|context|directions|rules|commands)",
    r"(?:do not|don t|dont|never|stop) (?:follow\w*|obey\w*) (?:the|your|any) (?:"
    r"(?:previous|prior|system|earlier) (?:instructions|rules|prompt)|(?:instructions|prompt|rules) above)",
    r"(?:ignore|disregard|forget) (?:everything|all|anything) (?:\w+ ){0,3}(?:above|before this|told)",
    *(
        rf"(?:{forget}) (?:\w+ ){{0,4}}(?:{orders})|(?:{orders}) (?:\w+ ){{0,3}}(?:{forget})"
        for forget, orders in _FORGET_ABROAD
    ),
    rf"{_JUDGE} (?:\w+ ){{0,5}}(?:as|to|be) (?:\w+ ){{0,2}}{_VERDICT}",
    rf"{_JUDGE} (?:this|it|me|them|everything|all) (?:\w+ ){{0,2}}{_VERDICT}",
    rf"(?:must|should|to) be {_JUDGED} (?:as )?{_VERDICT}",
    rf"(?:label|score|verdict|class|sentiment) (?:for|of) (?:this|every|each|all) (?:{_ITEMS}|message|review|tweet)",
    rf"{_JUDGE_ABROAD} (?:\w+ ){{0,6}}(?:como|comme|als|come|как|jako|as) (?:\w+ ){{0,2}}{_VERDICT}",
    rf"{_VERDICT} olarak",
    rf"sentiment (?:score|label|class|(?:of )?[01] \d|(?:is|to|must be|should be|as) (?:\w+ )?{_VERDICT})",
    rf"(?:other|following|remaining) {_ITEMS} (?:\w+ ){{0,5}}(?:{_VERDICT}|score\w*|label\w*|sentiment)",
    rf"results? (?:for|of) (?:all|every|each) (?:\w+ )?{_ITEMS}|{_ITEMS} in (?:this|the) (?:batch|json|array)",
    rf"rest of the (?:batch|{_ITEMS}) (?:\w+ ){{0,4}}{_VERDICT}|(?:skip|omit|leave out) (?:the )?results",
    rf"you are now (?:(?:an?|the|my|in) (?:\w+ ){{0,2}})?{_MACHINE}",
    r"(?:du bist (?:jetzt|nun|ab sofort)|ahora eres|eres ahora|tu es (?:maintenant|désormais)|(?:ora|adesso) sei|"
    rf"agora você é|теперь ты) (?:\w+ ){{0,3}}{_MACHINE}",
    rf"(?:act|respond|behave|roleplay|pretend to be|pretend you are)(?: as)? an? (?:\w+ )?{_MACHINE}",
    r"(?:as an?|as the|if you are an?|if you re an?) (?:ai|llm|(?:large )?language model|classifier|annotator|grader)",
    r"(?:any|the|whatever) (?:ai|llm|model|classifier) (?:reading|processing|judging|scoring|rating) (?:this|it|my)",
    r"(?:system|safety|admin|developer) override|prompt injection|your (?:new |real |only )?task (?:is|has changed)",
    r"grok (?:\w+ ){0,3}(?:give|score|rate|label|classify|mark|judge|ignore)",
    rf"from now on (?:\w+ ){{0,2}}(?:answer|respond|label|classify|output|rate|{_MACHINE})",
    r"(?:respond|answer|reply|output) (?:\w+ ){0,3}json",
    r"(?:respond|answer|reply|output|return|say|write) (?:\w+ ){0,3}(?:only|just|exclusively) "
    rf"(?:with |the word |as )*{_VERDICT}|output (?:{_VERDICT}|[01] \d)",
    r"(?:reveal|print|repeat|show|output|leak|display|tell|give|dump|write|translate|what is|what are) (?:\w+ ){0,3}"
    r"(?:(?:system|hidden|initial|your|secret) prompt|(?:system|hidden|initial|secret|original) instructions)",
    r"(?:reveal|print|repeat|output|leak) (?:the|your) (?:nonce|prompt|(?:instructions|words|text|items) above)",
    r"(?:note|attention|message|instruction|dear|hello|hey) (?:to |for )?(?:the |all |any )?"
    r"(?:ai|llms?|language models?|classifier|annotators?|grader)",
)
_ASKS_UNSPACED = _any_of(
    r"(?:忽略|无视|無視|忘记|忘掉|忽視).{0,16}(?:指令|指示|提示|说明|說明|规则|規則)",
    r"(?:指示|命令|プロンプト|指令|지시|명령|지침).{0,12}(?:無視|忘れ|忽略|무시|잊)",
    rf"(?:标记|標記|标为|標為|归类|分类|評為|评为|判为).{{0,10}}{_VERDICT_UNSPACED}",
    rf"{_VERDICT_UNSPACED}.{{0,10}}(?:分類|ラベル|標記|标记|분류|표시)",
)
# Sought in the text with its marks.
_IMITATES = _any_of(
    r"sentiment_score|injection_suspected",
    r"[\"'`](?:results|items|clusters|confidence|reasoning|nonce|reminder|sentiment|label|role)\\?[\"'`]\s{0,9}:",
    r"[\"'`]id\\?[\"'`]\s{0,9}:\s{0,9}[\"']?\d{5}",
    rf"\b(?:sentiment|clusters?|confidence|label)\s?[:=]\s?[\"']?(?:\[|[+-]?[01]\.\d|{_VERDICT})|\bnonce\s?[:=]",
    r"^[^{]*[\"\]]\s{0,9}\}\s{0,9}\]",  # closes what it never opened
    r"```\s?(?:json|[{\[])",
    r"<\|[\w ]{1,40}\|>|\[/?inst\]|<</?sys>>|\[\s?(?:system|assistant)\s?\]",
    r"</?(?:system|assistant|user|human|instructions?|items?|results?|prompt|text|document)(?:\s[^<>]{0,80})?>",
    r"(?:^|[\n\]}>\"'.!?|])\s{0,9}(?:#{1,6}\s?)?assistant\s?:",
    r"(?:^|[\n\]}>\"'.!?|])\s{0,9}(?:#{1,6}\s?)?(?:system|developer)(?: message)?\s?:\s{0,9}(?:you|ignore|new|from now|"
    r"override|label|classify|respond|answer|disregard|forget|the (?:user|next|following))\b",
    r"#{2,6}\s?(?:system|instructions?|response|assistant|prompt)\b",
    r"\bnew (?:system )?(?:instructions?|prompt|task)\s?:",
    r"[-=#*<\[]{2}\s?end (?:of )?(?:\w+ )?(?:document|input|items?|data|text|message|prompt)\b",
)


@lru_cache(maxsize=8192)
def _fold_character(character: str) -> str:
    """Lower case, without accents and without what has no width, Latin where it looks Latin."""
    plain = unicodedata.normalize("NFKD", character.casefold()).casefold()
    seen = "".join(part for part in plain if unicodedata.category(part) not in {"Mn", "Mc", "Me", "Cf"})
    return seen.translate(_LOOK_ALIKES)


def _fold(text: str) -> str:
    """Character by character, because normalising a whole text of accents takes time that grows with its square."""
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


# Folded as the texts are, so that "é" finds "e"; a class in capitals (\S, \D) would turn into its opposite.
_ASKING = re.compile(_fold(rf"\b{_ASKS}\b|{_ASKS_UNSPACED}"))
_IMITATING = re.compile(_fold(_IMITATES))
_GAP = re.compile(r"[\W_]+")


def looks_like_instructions(text: str) -> bool:
    """Whether `text` seems to talk to a model, to imitate our format, or to hide something; linear in its length."""
    shown = _REGION_FLAG.sub("", text)
    if _HIDDEN.search(shown) or (_DIRECTION.search(shown) and not _RIGHT_TO_LEFT.search(shown)):
        return True
    folded = _fold(shown)
    return bool(_IMITATING.search(folded) or _ASKING.search(_GAP.sub(" ", folded)))
