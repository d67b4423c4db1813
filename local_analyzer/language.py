"""Guess the language of a short text: by its script, else by its commonest words and letters."""

import re
from collections.abc import Iterable
from typing import Final

UNKNOWN: Final = "und"

_COMMON_WORDS: Final = {
    "en": "the and is are was were you your my i it its it's i'm to of for on with this that have has had not no but "
    "they we he she what why how when where who can can't cant don't dont didn't do does did be been am will would "
    "at from just so as if by or an our me us please help thanks thank still get got up out now about there here "
    "all one never because good great love new back need want really been it'll i've again any order waiting "
    "service phone app day today time works working ok yes hi hello hey cheers sorry sent",
    "es": "el la los las de que y en un una por con para mi tu su no se es me lo le te al del más muy pero como cuando "
    "donde nadie hola gracias hace hasta desde llevo está estoy tengo tiene qué cómo porque ya todo nada sin este "
    "esta son fue hay dos semanas pedido servicio quiero puedo usted ustedes nos siempre días",
    "fr": "le la les de des du et en un une est que qui je tu il elle nous vous ne pas pour avec sur dans mon ma mes "
    "votre vos ce cette c'est j'ai au aux mais plus très bonjour merci toujours rien depuis suis été avez sont on "
    "ça où quand comment personne être fait service commande colis jours semaines",
    "de": "der die das und ist nicht ich du er sie wir ihr ein eine einen einem mein meine mit auf für von zu im den "
    "dem des seit bei auch aber noch wie was wann wo warum kein keine hallo danke bitte immer schon nur mir mich "
    "haben habe hat wird sind war bin nach oder wenn so sehr paket wochen niemand tage",
    "pt": "o os as de que e em um uma por com para meu minha seu sua não nao se é me lhe ao do da dos das mais muito "
    "mas como quando onde ninguém olá oi obrigado obrigada faz até desde estou tenho tem porque já tudo nada sem "
    "isso este esta são foi há você vocês semanas pedido vcs pra tá só",
    "it": "il lo la gli le di che e in un una per con mio mia tuo suo non si è mi ti ci al del della dei più molto ma "
    "come quando dove nessuno ciao grazie da ho hai sono sto anche perché già tutto niente senza questo questa "
    "fa fino sei abbiamo avete settimane ordine servizio giorni della nel alla",
    "nl": "het een van ik je niet dat op te zijn met voor er maar mijn wij jullie geen al nog wel wat waar wanneer "
    "heb heeft bij ook naar dit deze bestelling pakket dagen weken niemand dank bedankt",
    "sv": "och att det är jag inte en som på för med har till av vi ni den mitt min var hur när ingen tack hej",
    "tr": "bir ve bu için çok ben mi da ama neden yok var değil gibi kadar hala siparişim teşekkürler kargo",
    "pl": "nie się jest na do że to jak ale mój moja dlaczego gdzie kiedy dziękuję proszę już tylko czekam",
    "id": "yang dan di saya tidak ini itu untuk dengan sudah belum bisa ada dari ke pesanan terima kasih mohon kapan",
    "hi": "hai nahi nahin kya mera meri aap mein ko se ka ki ke kar rha raha bhai yaar bahut kyun kab koi tha hoga",
}
_LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {}
for _language, _words in _COMMON_WORDS.items():
    for _word in dict.fromkeys(_words.split()):
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)

_LETTERS: Final = {
    **dict.fromkeys("ñ¿¡", "es"),
    **dict.fromkeys("œùûîêëæ", "fr"),
    **dict.fromkeys("ßäü", "de"),
    **dict.fromkeys("ãõ", "pt"),
    **dict.fromkeys("ìò", "it"),
    **dict.fromkeys("ğış", "tr"),
    **dict.fromkeys("łęśżźń", "pl"),
    **dict.fromkeys("å", "sv"),
}
_SCRIPTS: Final = (  # in order: kana before Han, since Japanese writes both
    ("ar", re.compile(r"[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u3400-\u9fff]")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("bn", re.compile(r"[\u0980-\u09ff]")),
    ("ta", re.compile(r"[\u0b80-\u0bff]")),
)
_NOT_LATIN: Final = re.compile(r"[\u0370-\u1fff\u2c00-\ud7ff\uf900-\ufdff\ufe70-\ufeff]")
_LATIN: Final = re.compile(r"[a-z\u00c0-\u024f]")
_FOREIGN_LETTER: Final = re.compile(f"[{''.join(_LETTERS)}]")


def guess_language(clean: str, tokens: Iterable[str]) -> str:
    """The ISO 639-1 code of a lower-cased text, or "und" where nothing tells."""
    if not clean.isascii():
        other = len(_NOT_LATIN.findall(clean))
        if other and other >= len(_LATIN.findall(clean)) // 2:
            return _by_script(clean)
    hits: dict[str, int] = {}
    for token in tokens:
        for language in _LANGUAGES_OF.get(token, ()):
            hits[language] = hits.get(language, 0) + 1
    if not clean.isascii():
        for letter in _FOREIGN_LETTER.findall(clean):
            language = _LETTERS[letter]
            hits[language] = hits.get(language, 0) + 1
    return max(hits, key=lambda language: (hits[language], language == "en"), default=UNKNOWN)


def _by_script(clean: str) -> str:
    counts = [(len(pattern.findall(clean)), language) for language, pattern in _SCRIPTS]
    most = max(count for count, _ in counts)
    if not most:
        return UNKNOWN
    if most == counts[3][0] and counts[2][0]:
        return "ja"
    return next(language for count, language in counts if count == most)
