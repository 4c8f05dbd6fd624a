"""The languages of explanations: English, Serbian (Latin and Cyrillic), Czech, Slovenian, Bulgarian.

Numbers are written as the language writes them. Templates are worded so that no noun stands behind a number: Slavic
plurals depend on it. What the configuration names (offers, features, rules) stays as it is written there.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from string import Formatter
from typing import Any, Final

from engine.explain.words import ENGLISH, Number, Words

_BETWEEN_DIGITS: Final = re.compile(r"(?<=\d)[.,](?=\d)")


class _Localised(str):
    """A template whose numbers are written with the marks of a language."""

    _decimal: str
    _group: str

    def __new__(cls, template: str, decimal: str, group: str) -> "_Localised":
        """`decimal` stands before the tenths, `group` between thousands."""
        made = super().__new__(cls, template)
        made._decimal, made._group = decimal, group
        return made

    def format(self, *args: Any, **values: Any) -> str:
        """As str.format."""
        return _Writer(self._decimal, self._group).vformat(str(self), args, values)


class _Writer(Formatter):
    def __init__(self, decimal: str, group: str) -> None:
        self._marks = {".": decimal, ",": group}

    def format_field(self, value: Any, format_spec: str) -> str:
        """Numbers with the marks of the language, all else as it is."""
        text = format(value, format_spec)
        if isinstance(value, int | float | Number):
            return _BETWEEN_DIGITS.sub(lambda mark: self._marks[mark[0]], text)
        return text


def _in(words: Words, decimal: str, group: str) -> Words:
    """The same words, their numbers written with these marks."""
    return _mapped(words, lambda text: _Localised(text, decimal, group))


def _mapped(words: Words, change: Any) -> Words:
    found: dict[str, Any] = {}
    for field in fields(words):
        value = getattr(words, field.name)
        found[field.name] = (
            {key: change(text) for key, text in value.items()} if isinstance(value, Mapping) else change(value)
        )
    return replace(words, **found)


_CYRILLIC: Final = dict(
    zip(
        "abvgdđežzijklmnoprstćufhcčšABVGDĐEŽZIJKLMNOPRSTĆUFHCČŠ",
        "абвгдђежзијклмнопрстћуфхцчшАБВГДЂЕЖЗИЈКЛМНОПРСТЋУФХЦЧШ",
        strict=True,
    )
)
_DIGRAPHS: Final = {"lj": "љ", "nj": "њ", "dž": "џ", "Lj": "Љ", "Nj": "Њ", "Dž": "Џ"}


def cyrillic(template: str) -> str:
    """A Serbian template in Cyrillic; what stands in braces, and names of settings, stay as they are.

    >>> cyrillic("Ponudite {offer}: najbolje što se može dati.")
    'Понудите {offer}: најбоље што се може дати.'
    """
    parts = re.split(r"(\{[^}]*\}|\w+_\w+)", template)
    for at in range(0, len(parts), 2):
        text = re.sub("|".join(_DIGRAPHS), lambda pair: _DIGRAPHS[pair[0]], parts[at])
        parts[at] = "".join(_CYRILLIC.get(letter, letter) for letter in text)
    return "".join(parts)


_SERBIAN: Final = Words(
    about="oko {value}",
    yes="da",
    no="ne",
    not_known="nije poznato",
    part="{input} ({value}, {points:+.1f} p. p.)",
    hashed="{value}, u koloni {column} od {columns}, koju više vrednosti može da deli",
    combined="više podataka zajedno ({points:+.1f} p. p.)",
    by_points="bodovi umesto ishoda ({points:+.1f} p. p.)",
    speaks_for="Za: {parts}.",
    speaks_against="Protiv: {parts}.",
    base_average="Za prosečnog klijenta procena ({estimated}) iznosi {base:.1%}.",
    base_middle="Za klijenta u sredini svih raspona procena ({estimated}) iznosi {base:.1%}.",
    acceptance="prihvatanje",
    share_of_value="udeo u vrednosti",
    rank=(
        "Mesto {rank}: {offer}, procena ({estimated}) {estimate:.1%} (± {sd:.1%}), očekivana vrednost {worth}, "
        "verovatnoća izbora {propensity:.3g}."
    ),
    estimate_only="{offer}: procena ({estimated}) {estimate:.1%}, očekivana vrednost {worth}.",
    best="Ništa drugo što je moglo da se izabere nije imalo veću očekivanu vrednost.",
    explored=(
        "Isprobavanje: {other} ima očekivanu vrednost veću za {more}; {offer} je izvučeno sa verovatnoćom "
        "{propensity:.3g}."
    ),
    explored_over_silence=(
        "Isprobavanje: ne ponuditi ništa ima očekivanu vrednost veću za {more}; {offer} je izvučeno sa verovatnoćom "
        "{propensity:.3g}."
    ),
    not_chosen="Dozvoljeno, ali očekivana vrednost je za {less} manja nego za {chosen}.",
    not_chosen_unknown="{offer}: dozvoljeno, ali nije izabrano.",
    not_drawn="Dozvoljeno, očekivana vrednost je za {more} veća nego za {chosen}, ali nije izvučeno: isprobava se.",
    not_drawn_silence="Dozvoljeno, očekivana vrednost {worth}, ali izvučeno je da se ne ponudi ništa: isprobava se.",
    worth_less_than_nothing="Dozvoljeno, ali očekivana vrednost je za {less} manja nego da se ne ponudi ništa.",
    not_eligible="{offer}: nije dozvoljeno, razlog: {rules}.",
    rule_not_held="{rule} nije ispunjeno",
    rule_failed="{rule} nije moglo da se izračuna",
    wrong_channel="nije u ponudi u kanalu {channel}",
    wrong_placement="nije u ponudi na mestu {placement} kanala {channel} ili za njega nema tekst",
    wrong_time="nije u roku od starts_ms do ends_ms",
    situation="Klijent {customer}, {known}: u kanalu {channel} dozvoljeno je {eligible} od {offers} ponuda.",
    known="stanje poznato",
    unknown="ništa nije poznato",
    nothing_eligible="Nije bilo između čega da se bira.",
    silence_drawn="Izabrano je da se ne ponudi ništa, sa verovatnoćom {propensity:.3g}.",
    silence_best="Nijedna dozvoljena ponuda nije vredna kontakta.",
    silence_explored="Isprobavanje: {other} ima očekivanu vrednost {worth}.",
    silence_after="Posle toga je izvučeno da se više ništa ne ponudi, sa verovatnoćom {propensity:.3g}.",
    degraded="Ograničeno: {reason}.",
    calibrated="Od klijenata sa takvom procenom prihvatilo je {shown:.1%}.",
    rung_points=(
        "Procena počiva na bodovima: {points:g} znači {rate:.1%}; težina bodova {strength:g}, dosadašnjih ishoda "
        "{lessons:.0f}."
    ),
    rung_category="Procena počiva na kategoriji {category}: ishoda ostalih ponuda {others:.0f}, sopstvenih {own:.0f}.",
    rung_own="Procena počiva na sopstvenim ishodima; ima ih {own:.0f}.",
    other_version=(
        "Politika {version}, koja je odlučila, više se ne čuva; objašnjava politika {used}, najbliža njoj. Izabrano je "
        "kako je odlučeno; doprinosi i ponude koje nisu izabrane su približni."
    ),
    disagrees=(
        "Sačuvana politika {used} ne daje procene iz zapisa; izabrano je kako je odlučeno, doprinosi i ponude koje "
        "nisu izabrane su približni."
    ),
    points_later="Koliko teže bodovi ponuda koje nisu izabrane, kazuje politika koja sada važi.",
    no_belief="Nijedna sačuvana politika nije videla ove podatke: ne može se reći koliko je koji doprineo.",
    offers_unknown="Politika {used} ne poznaje {offers}: njihova očekivana vrednost se ne može reći.",
    brief_offer="Ponudite {offer}.",
    brief_parameters="Uz to: {parameters}.",
    brief_held="To je obećano do {date}.",
    brief_for="Za to govori: {parts}.",
    brief_against="Protiv toga govori: {parts}.",
    brief_explored="Ovo se isprobava: {other} ima očekivanu vrednost veću za {more}.",
    brief_nothing="Sada ne nudite ništa.",
    control_group="{offer}: zadržava {group}, da bi se izmerilo šta ponude donose.",
    arms="U eksperimentima: {arms}.",
    rule_named="{name} ({rule})",
    no_consent="{rule} traži saglasnost klijenta, a {consent} nije dato",
    held_back="zadržava: {limit}",
    no_treatment="nema tekst za kanal {channel}",
    layers={
        "eligibility": "dozvoljenost",
        "applicability": "primenljivost",
        "suitability": "primerenost",
        "trigger": "povod",
        "contact_policy": "pravila kontakta",
        "guard": "zaštita",
        "budget": "budžet",
        "control_group": "kontrolna grupa",
        "channel": "",
        "placement": "",
        "treatment": "",
        "validity": "",
    },
    offer_held_back="{offer}: dozvoljeno, ali zadržano: {limits}.",
    offer_held_back_until="{offer}: dozvoljeno, ali zadržano do {until}: {limits}.",
    all_held_back="Sve što je bilo dozvoljeno je zadržano.",
    weighs="Ponderisano: {factors}.",
    weight="{name} × {times:g}",
    risk_customer="rizik klijenta {loss} ({name})",
    risk_company="rizik preduzeća {loss} ({name})",
    information="Znati odgovor vredi {amount}.",
    in_answers={
        "best": "Najveća očekivana vrednost među dozvoljenim ponudama.",
        "explored": "Izabrano da bi se učilo: od druge ponude se očekuje više, ali ne pouzdano.",
        "cold_start": "O ovoj ponudi se zna malo ishoda: procena se oslanja na sve ponude zajedno.",
        "points": "Procena počiva na bodovima klijenta: ishodi još ne teže toliko.",
        "category": "Procena počiva na onome što su pokazale druge ponude, najpre one iz iste kategorije.",
        "own": "Procena počiva na ishodima same ove ponude.",
        "resumed": "Klijent nastavlja ponudu koja je još otvorena.",
        "not_eligible": "Pravila sada ne ostavljaju nijednu ponudu za ovog klijenta u ovom kanalu.",
        "held_back": "Pravila ostavljaju ponude, ali ih za sada sve zadržava politika kontakata ili neko ograničenje.",
        "silence": "Ni od jedne ponude se ne očekuje da je vredna kontakta.",
        "control_group": "Zadržano: klijent je u kontrolnoj grupi, da bi se izmerilo šta ponude donose.",
        "fallback": "{why}: sa rezervne liste kataloga.",
        "no_fallback": "{why}, a u ovom kanalu sada nije moguće dati rezervnu ponudu.",
        "state_away": "Stanje klijenta nije bilo dostupno na vreme",
        "commit_failed": "Odluka nije mogla da se zabeleži na vreme",
        "deadline_near": "Odluka nije bila gotova pre isteka vremena pozivaoca",
    },
)

_CZECH: Final = Words(
    about="asi {value}",
    yes="ano",
    no="ne",
    not_known="není známo",
    part="{input} ({value}, {points:+.1f} p. b.)",
    hashed="{value}, ve sloupci {column} z {columns}, který může mít více hodnot",
    combined="více údajů dohromady ({points:+.1f} p. b.)",
    by_points="body místo výsledků ({points:+.1f} p. b.)",
    speaks_for="Pro: {parts}.",
    speaks_against="Proti: {parts}.",
    base_average="Pro průměrného klienta činí odhad ({estimated}) {base:.1%}.",
    base_middle="Pro klienta uprostřed všech rozsahů činí odhad ({estimated}) {base:.1%}.",
    acceptance="přijetí",
    share_of_value="podíl na hodnotě",
    rank=(
        "Pořadí {rank}: {offer}, odhad ({estimated}) {estimate:.1%} (± {sd:.1%}), očekávaná hodnota {worth}, "
        "pravděpodobnost výběru {propensity:.3g}."
    ),
    estimate_only="{offer}: odhad ({estimated}) {estimate:.1%}, očekávaná hodnota {worth}.",
    best="Nic jiného, co bylo možné vybrat, nemělo vyšší očekávanou hodnotu.",
    explored=(
        "Zkouší se: {other} má očekávanou hodnotu vyšší o {more}; {offer} bylo vylosováno s pravděpodobností "
        "{propensity:.3g}."
    ),
    explored_over_silence=(
        "Zkouší se: nenabídnout nic má očekávanou hodnotu vyšší o {more}; {offer} bylo vylosováno s pravděpodobností "
        "{propensity:.3g}."
    ),
    not_chosen="Přípustné, ale očekávaná hodnota je o {less} nižší než u {chosen}.",
    not_chosen_unknown="{offer}: přípustné, ale nevybráno.",
    not_drawn="Přípustné, očekávaná hodnota je o {more} vyšší než u {chosen}, ale nevylosováno: systém zkouší.",
    not_drawn_silence="Přípustné, očekávaná hodnota {worth}, ale vylosováno bylo nenabídnout nic: systém zkouší.",
    worth_less_than_nothing="Přípustné, ale očekávaná hodnota je o {less} nižší, než když se nenabídne nic.",
    not_eligible="{offer}: nepřípustné, důvod: {rules}.",
    rule_not_held="{rule} neplatilo",
    rule_failed="{rule} nebylo možné vyhodnotit",
    wrong_channel="v kanálu {channel} se nenabízí",
    wrong_placement="na místě {placement} kanálu {channel} se nenabízí nebo pro něj nemá text",
    wrong_time="mimo dobu od starts_ms do ends_ms",
    situation="Klient {customer}, {known}: v kanálu {channel} je přípustných nabídek {eligible} z {offers}.",
    known="stav znám",
    unknown="nic není známo",
    nothing_eligible="Nebylo z čeho vybírat.",
    silence_drawn="Vybráno bylo nenabídnout nic, s pravděpodobností {propensity:.3g}.",
    silence_best="Žádná přípustná nabídka nestojí za kontakt.",
    silence_explored="Zkouší se: {other} má očekávanou hodnotu {worth}.",
    silence_after="Potom bylo vylosováno nenabízet nic dalšího, s pravděpodobností {propensity:.3g}.",
    degraded="Omezeno: {reason}.",
    calibrated="Z klientů s takovým odhadem přijalo {shown:.1%}.",
    rung_points=(
        "Odhad se opírá o body: {points:g} znamená {rate:.1%}; váha bodů {strength:g}, dosavadních výsledků "
        "{lessons:.0f}."
    ),
    rung_category="Odhad se opírá o kategorii {category}: výsledků jiných nabídek {others:.0f}, vlastních {own:.0f}.",
    rung_own="Odhad se opírá o vlastní výsledky, kterých je {own:.0f}.",
    other_version=(
        "Politika {version}, která rozhodla, se již neuchovává; vysvětluje politika {used}, jí nejbližší. Vybrané je "
        "tak, jak se rozhodlo; příspěvky a nevybrané nabídky jsou přibližné."
    ),
    disagrees=(
        "Uchovaná politika {used} nedává odhady ze záznamu; vybrané je tak, jak se rozhodlo, příspěvky a nevybrané "
        "nabídky jsou přibližné."
    ),
    points_later="Kolik váží body nevybraných nabídek, říká politika, která platí nyní.",
    no_belief="Žádná uchovaná politika tyto údaje neviděla: nelze říci, čím který přispěl.",
    offers_unknown="Politika {used} nezná {offers}: jejich očekávanou hodnotu nelze říci.",
    brief_offer="Nabídněte {offer}.",
    brief_parameters="S tím: {parameters}.",
    brief_held="To je slíbeno do {date}.",
    brief_for="Mluví pro to: {parts}.",
    brief_against="Mluví proti tomu: {parts}.",
    brief_explored="Toto se zkouší: {other} má očekávanou hodnotu vyšší o {more}.",
    brief_nothing="Nyní nenabízejte nic.",
    control_group="{offer}: zadržuje {group}, aby bylo možné změřit, co nabídky přinášejí.",
    arms="V experimentech: {arms}.",
    rule_named="{name} ({rule})",
    no_consent="{rule} vyžaduje souhlas klienta a {consent} nebyl dán",
    held_back="zadržuje: {limit}",
    no_treatment="nemá text pro kanál {channel}",
    layers={
        "eligibility": "přípustnost",
        "applicability": "použitelnost",
        "suitability": "vhodnost",
        "trigger": "podnět",
        "contact_policy": "pravidla kontaktu",
        "guard": "ochrana",
        "budget": "rozpočet",
        "control_group": "kontrolní skupina",
        "channel": "",
        "placement": "",
        "treatment": "",
        "validity": "",
    },
    offer_held_back="{offer}: přípustné, ale zadržené: {limits}.",
    offer_held_back_until="{offer}: přípustné, ale zadržené do {until}: {limits}.",
    all_held_back="Vše, co bylo přípustné, je zadrženo.",
    weighs="Váženo: {factors}.",
    weight="{name} × {times:g}",
    risk_customer="riziko klienta {loss} ({name})",
    risk_company="riziko společnosti {loss} ({name})",
    information="Znát odpověď má hodnotu {amount}.",
    in_answers={
        "best": "Nejvyšší očekávaná hodnota mezi přípustnými nabídkami.",
        "explored": "Vybráno kvůli učení: od jiné nabídky se čeká víc, ale ne jistě.",
        "cold_start": "O této nabídce je známo málo výsledků: odhad se opírá o všechny nabídky dohromady.",
        "points": "Odhad se opírá o body zákazníka: výsledky zatím tolik neváží.",
        "category": "Odhad se opírá o to, co ukázaly jiné nabídky, především ze stejné kategorie.",
        "own": "Odhad se opírá o výsledky této nabídky samotné.",
        "resumed": "Zákazník pokračuje v nabídce, která je stále otevřená.",
        "not_eligible": "Pravidla nyní tomuto zákazníkovi v tomto kanálu nenechávají žádnou nabídku.",
        "held_back": "Pravidla nabídky připouštějí, ale všechny je zatím zadržují pravidla kontaktů nebo jiné omezení.",
        "silence": "Od žádné nabídky se nečeká, že stojí za kontakt.",
        "control_group": "Zadrženo: zákazník je v kontrolní skupině, aby se změřilo, co nabídky přinášejí.",
        "fallback": "{why}: ze záložního seznamu katalogu.",
        "no_fallback": "{why} a v tomto kanálu nyní nelze učinit žádnou záložní nabídku.",
        "state_away": "Stav zákazníka nebyl včas k dispozici",
        "commit_failed": "Rozhodnutí nebylo možné včas zaznamenat",
        "deadline_near": "Rozhodnutí nebylo hotové před lhůtou volajícího",
    },
)

_SLOVENIAN: Final = Words(
    about="približno {value}",
    yes="da",
    no="ne",
    not_known="ni znano",
    part="{input} ({value}, {points:+.1f} o. t.)",
    hashed="{value}, v stolpcu {column} od {columns}, ki ga lahko deli več vrednosti",
    combined="več podatkov skupaj ({points:+.1f} o. t.)",
    by_points="točke namesto izidov ({points:+.1f} o. t.)",
    speaks_for="Za: {parts}.",
    speaks_against="Proti: {parts}.",
    base_average="Za povprečno stranko znaša ocena ({estimated}) {base:.1%}.",
    base_middle="Za stranko v sredini vseh razponov znaša ocena ({estimated}) {base:.1%}.",
    acceptance="sprejetje",
    share_of_value="delež vrednosti",
    rank=(
        "Mesto {rank}: {offer}, ocena ({estimated}) {estimate:.1%} (± {sd:.1%}), pričakovana vrednost {worth}, "
        "verjetnost izbire {propensity:.3g}."
    ),
    estimate_only="{offer}: ocena ({estimated}) {estimate:.1%}, pričakovana vrednost {worth}.",
    best="Nič drugega, kar je bilo mogoče izbrati, ni imelo višje pričakovane vrednosti.",
    explored=(
        "Preizkušanje: {other} ima za {more} višjo pričakovano vrednost; {offer} je bilo izžrebano z verjetnostjo "
        "{propensity:.3g}."
    ),
    explored_over_silence=(
        "Preizkušanje: ne ponuditi ničesar ima za {more} višjo pričakovano vrednost; {offer} je bilo izžrebano z "
        "verjetnostjo {propensity:.3g}."
    ),
    not_chosen="Dovoljeno, vendar je pričakovana vrednost za {less} nižja kot pri {chosen}.",
    not_chosen_unknown="{offer}: dovoljeno, vendar ni izbrano.",
    not_drawn="Dovoljeno, pričakovana vrednost je za {more} višja kot pri {chosen}, a ni izžrebano: sistem preizkuša.",
    not_drawn_silence=(
        "Dovoljeno, pričakovana vrednost {worth}, vendar je bilo izžrebano, da se ne ponudi nič: sistem preizkuša."
    ),
    worth_less_than_nothing="Dovoljeno, vendar je pričakovana vrednost za {less} nižja, kot če se ne ponudi nič.",
    not_eligible="{offer}: ni dovoljeno, razlog: {rules}.",
    rule_not_held="{rule} ni veljalo",
    rule_failed="{rule} ni bilo mogoče izračunati",
    wrong_channel="v kanalu {channel} se ne ponuja",
    wrong_placement="na mestu {placement} kanala {channel} se ne ponuja ali zanj nima besedila",
    wrong_time="zunaj roka od starts_ms do ends_ms",
    situation="Stranka {customer}, {known}: v kanalu {channel} je dovoljenih ponudb {eligible} od {offers}.",
    known="stanje znano",
    unknown="nič ni znano",
    nothing_eligible="Ni bilo med čim izbirati.",
    silence_drawn="Izbrano je bilo, da se ne ponudi nič, z verjetnostjo {propensity:.3g}.",
    silence_best="Nobena dovoljena ponudba ni vredna stika.",
    silence_explored="Preizkušanje: {other} ima pričakovano vrednost {worth}.",
    silence_after="Nato je bilo izžrebano, da se ne ponudi nič več, z verjetnostjo {propensity:.3g}.",
    degraded="Omejeno: {reason}.",
    calibrated="Od strank s tako oceno jih je sprejelo {shown:.1%}.",
    rung_points=(
        "Ocena temelji na točkah: {points:g} pomeni {rate:.1%}; teža točk {strength:g}, dosedanjih izidov "
        "{lessons:.0f}."
    ),
    rung_category="Ocena temelji na kategoriji {category}: izidov drugih ponudb {others:.0f}, lastnih {own:.0f}.",
    rung_own="Ocena temelji na lastnih izidih; teh je {own:.0f}.",
    other_version=(
        "Politika {version}, ki je odločila, se ne hrani več; pojasnjuje politika {used}, njej najbližja. Izbrano je, "
        "kot je bilo odločeno; prispevki in neizbrane ponudbe so približni."
    ),
    disagrees=(
        "Shranjena politika {used} ne da ocen iz zapisa; izbrano je, kot je bilo odločeno, prispevki in neizbrane "
        "ponudbe so približni."
    ),
    points_later="Koliko tehtajo točke neizbranih ponudb, pove politika, ki velja zdaj.",
    no_belief="Nobena shranjena politika ni videla teh podatkov: ni mogoče reči, koliko je kateri prispeval.",
    offers_unknown="Politika {used} ne pozna {offers}: njihove pričakovane vrednosti ni mogoče povedati.",
    brief_offer="Ponudite {offer}.",
    brief_parameters="Ob tem: {parameters}.",
    brief_held="To je obljubljeno do {date}.",
    brief_for="Za to govori: {parts}.",
    brief_against="Proti temu govori: {parts}.",
    brief_explored="To se preizkuša: {other} ima za {more} višjo pričakovano vrednost.",
    brief_nothing="Zdaj ne ponujajte ničesar.",
    control_group="{offer}: zadržuje {group}, da se lahko izmeri, kaj ponudbe prinašajo.",
    arms="V poskusih: {arms}.",
    rule_named="{name} ({rule})",
    no_consent="{rule} zahteva soglasje stranke, {consent} pa ni bilo dano",
    held_back="zadržuje: {limit}",
    no_treatment="nima besedila za kanal {channel}",
    layers={
        "eligibility": "upravičenost",
        "applicability": "uporabnost",
        "suitability": "primernost",
        "trigger": "povod",
        "contact_policy": "pravila stikov",
        "guard": "zaščita",
        "budget": "proračun",
        "control_group": "kontrolna skupina",
        "channel": "",
        "placement": "",
        "treatment": "",
        "validity": "",
    },
    offer_held_back="{offer}: dovoljeno, vendar zadržano: {limits}.",
    offer_held_back_until="{offer}: dovoljeno, vendar zadržano do {until}: {limits}.",
    all_held_back="Vse, kar je bilo dovoljeno, je zadržano.",
    weighs="Uteženo: {factors}.",
    weight="{name} × {times:g}",
    risk_customer="tveganje stranke {loss} ({name})",
    risk_company="tveganje podjetja {loss} ({name})",
    information="Poznati odgovor je vredno {amount}.",
    in_answers={
        "best": "Najvišja pričakovana vrednost med dovoljenimi ponudbami.",
        "explored": "Izbrano zaradi učenja: od druge ponudbe se pričakuje več, a ne zanesljivo.",
        "cold_start": "O tej ponudbi je znanih malo izidov: ocena se opira na vse ponudbe skupaj.",
        "points": "Ocena temelji na točkah stranke: izidi še ne tehtajo toliko.",
        "category": "Ocena temelji na tem, kar so pokazale druge ponudbe, najprej tiste iz iste kategorije.",
        "own": "Ocena temelji na izidih te ponudbe same.",
        "resumed": "Stranka nadaljuje ponudbo, ki je še odprta.",
        "not_eligible": "Pravila tej stranki v tem kanalu zdaj ne puščajo nobene ponudbe.",
        "held_back": "Pravila ponudbe dopuščajo, a vse za zdaj zadržujejo pravila o stikih ali druga omejitev.",
        "silence": "Za nobeno ponudbo se ne pričakuje, da je vredna stika.",
        "control_group": "Zadržano: stranka je v kontrolni skupini, da se izmeri, kaj ponudbe prinašajo.",
        "fallback": "{why}: z nadomestnega seznama kataloga.",
        "no_fallback": "{why}, v tem kanalu pa zdaj ni mogoče dati nadomestne ponudbe.",
        "state_away": "Stanje stranke ni bilo pravočasno na voljo",
        "commit_failed": "Odločitve ni bilo mogoče pravočasno zabeležiti",
        "deadline_near": "Odločitev ni bila pripravljena pred rokom klicatelja",
    },
)

_BULGARIAN: Final = Words(
    about="около {value}",
    yes="да",
    no="не",
    not_known="не е известно",
    part="{input} ({value}, {points:+.1f} пр. п.)",
    hashed="{value}, в колона {column} от {columns}, която може да е обща за няколко стойности",
    combined="няколко данни заедно ({points:+.1f} пр. п.)",
    by_points="точки вместо резултати ({points:+.1f} пр. п.)",
    speaks_for="За: {parts}.",
    speaks_against="Против: {parts}.",
    base_average="За средния клиент оценката ({estimated}) е {base:.1%}.",
    base_middle="За клиент в средата на всички обхвати оценката ({estimated}) е {base:.1%}.",
    acceptance="приемане",
    share_of_value="дял от стойността",
    rank=(
        "Място {rank}: {offer}, оценка ({estimated}) {estimate:.1%} (± {sd:.1%}), очаквана стойност {worth}, "
        "вероятност за избор {propensity:.3g}."
    ),
    estimate_only="{offer}: оценка ({estimated}) {estimate:.1%}, очаквана стойност {worth}.",
    best="Нищо друго, което можеше да бъде избрано, нямаше по-висока очаквана стойност.",
    explored=(
        "Изпробва се: {other} има по-висока очаквана стойност с {more}; {offer} беше изтеглено с вероятност "
        "{propensity:.3g}."
    ),
    explored_over_silence=(
        "Изпробва се: да не се предлага нищо има по-висока очаквана стойност с {more}; {offer} беше изтеглено с "
        "вероятност {propensity:.3g}."
    ),
    not_chosen="Допустимо, но очакваната стойност е с {less} по-ниска от тази на {chosen}.",
    not_chosen_unknown="{offer}: допустимо, но не е избрано.",
    not_drawn=(
        "Допустимо, очакваната стойност е с {more} по-висока от тази на {chosen}, но не е изтеглено: изпробва се."
    ),
    not_drawn_silence="Допустимо, очаквана стойност {worth}, но беше изтеглено да не се предлага нищо: изпробва се.",
    worth_less_than_nothing="Допустимо, но очакваната стойност е с {less} по-ниска, отколкото без предложение.",
    not_eligible="{offer}: недопустимо, причина: {rules}.",
    rule_not_held="{rule} не беше изпълнено",
    rule_failed="{rule} не можа да бъде изчислено",
    wrong_channel="не се предлага в канал {channel}",
    wrong_placement="не се предлага на място {placement} в канал {channel} или няма текст за него",
    wrong_time="извън срока от starts_ms до ends_ms",
    situation="Клиент {customer}, {known}: в канал {channel} са допустими {eligible} от {offers} предложения.",
    known="състоянието е известно",
    unknown="нищо не е известно",
    nothing_eligible="Нямаше от какво да се избира.",
    silence_drawn="Избрано беше да не се предлага нищо, с вероятност {propensity:.3g}.",
    silence_best="Никое допустимо предложение не си струва контакта.",
    silence_explored="Изпробва се: {other} има очаквана стойност {worth}.",
    silence_after="След това беше изтеглено да не се предлага нищо повече, с вероятност {propensity:.3g}.",
    degraded="Ограничено: {reason}.",
    calibrated="От клиентите с такава оценка приеха {shown:.1%}.",
    rung_points=(
        "Оценката почива на точки: {points:g} означава {rate:.1%}; тежест на точките {strength:g}, на резултатите "
        "досега {lessons:.0f}."
    ),
    rung_category=(
        "Оценката почива на категория {category}: резултати на другите предложения {others:.0f}, собствени {own:.0f}."
    ),
    rung_own="Оценката почива на собствени резултати, на брой {own:.0f}.",
    other_version=(
        "Политика {version}, която реши, вече не се пази; обяснява политика {used}, най-близката до нея. Избраното е "
        "както е решено; приносите и неизбраните предложения са приблизителни."
    ),
    disagrees=(
        "Запазената политика {used} не дава оценките от записа; избраното е както е решено, приносите и неизбраните "
        "предложения са приблизителни."
    ),
    points_later="Колко тежат точките на неизбраните предложения, казва политиката, която важи сега.",
    no_belief="Никоя запазена политика не е виждала тези данни: не може да се каже кое колко е допринесло.",
    offers_unknown="Политика {used} не познава {offers}: очакваната им стойност не може да се каже.",
    brief_offer="Предложете {offer}.",
    brief_parameters="С това: {parameters}.",
    brief_held="Това е обещано до {date}.",
    brief_for="В полза говори: {parts}.",
    brief_against="Против говори: {parts}.",
    brief_explored="Това се изпробва: {other} има по-висока очаквана стойност с {more}.",
    brief_nothing="Сега не предлагайте нищо.",
    control_group="{offer}: задържа се от {group}, за да се измери какво носят предложенията.",
    arms="В експерименти: {arms}.",
    rule_named="{name} ({rule})",
    no_consent="{rule} изисква съгласие на клиента, а {consent} не е дадено",
    held_back="задържа се от: {limit}",
    no_treatment="няма текст за канал {channel}",
    layers={
        "eligibility": "допустимост",
        "applicability": "приложимост",
        "suitability": "уместност",
        "trigger": "повод",
        "contact_policy": "правила за контакт",
        "guard": "защита",
        "budget": "бюджет",
        "control_group": "контролна група",
        "channel": "",
        "placement": "",
        "treatment": "",
        "validity": "",
    },
    offer_held_back="{offer}: допустимо, но задържано: {limits}.",
    offer_held_back_until="{offer}: допустимо, но задържано до {until}: {limits}.",
    all_held_back="Всичко допустимо е задържано.",
    weighs="Претеглено: {factors}.",
    weight="{name} × {times:g}",
    risk_customer="риск за клиента {loss} ({name})",
    risk_company="риск за дружеството {loss} ({name})",
    information="Да се знае отговорът струва {amount}.",
    in_answers={
        "best": "Най-високата очаквана стойност сред допустимите предложения.",
        "explored": "Избрано, за да се учи: от друго предложение се очаква повече, но не със сигурност.",
        "cold_start": "За това предложение се знаят малко резултати: оценката се опира на всички предложения.",
        "points": "Оценката почива на точките на клиента: резултатите още не тежат толкова.",
        "category": "Оценката почива на това, което са показали други предложения, най-напред от същата категория.",
        "own": "Оценката почива на резултатите на самото предложение.",
        "resumed": "Клиентът продължава предложение, което още е отворено.",
        "not_eligible": "Правилата сега не оставят предложение за този клиент в този канал.",
        "held_back": "Правилата допускат предложения, но засега правила за контакт или ограничения ги задържат.",
        "silence": "От никое предложение не се очаква да си струва контакта.",
        "control_group": "Задържано: клиентът е в контролна група, за да се измери какво носят предложенията.",
        "fallback": "{why}: от резервния списък на каталога.",
        "no_fallback": "{why}, а в този канал сега не може да се направи резервно предложение.",
        "state_away": "Състоянието на клиента не беше налично навреме",
        "commit_failed": "Решението не можа да бъде записано навреме",
        "deadline_near": "Решението не беше готово преди срока на извикващия",
    },
)

_NARROW_SPACE: Final = "\N{NARROW NO-BREAK SPACE}"

WORDS: Final = {
    "en": ENGLISH,
    "sr": _in(_SERBIAN, ",", "."),
    "sr-cyrl": _in(_mapped(_SERBIAN, cyrillic), ",", "."),
    "cs": _in(_CZECH, ",", _NARROW_SPACE),
    "sl": _in(_SLOVENIAN, ",", "."),
    "bg": _in(_BULGARIAN, ",", _NARROW_SPACE),
}
"""By language, in lower case."""


def words_for(language: str) -> tuple[str, Words]:
    """The language of the table that fits a tag of BCP 47, and its words; English if none does.

    >>> [words_for(tag)[0] for tag in ("en-GB", "sr-Latn-RS", "sr-Cyrl-RS", "cs", "xx", "")]
    ['en', 'sr', 'sr-cyrl', 'cs', 'en', 'en']
    """
    primary, _, rest = language.lower().partition("-")
    for tag in (f"{primary}-{rest.partition('-')[0]}", primary):
        if tag in WORDS:
            return tag, WORDS[tag]
    return "en", ENGLISH
