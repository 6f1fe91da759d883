"""What the commands of LaTeX mean as characters, and how each stands among its neighbours. Tables only.

A table of our own: a library's has no classes, and without them "a = -b" cannot be spaced. Letters of which common
terminal fonts have no raised or lowered form (all Greek ones) have none here: they are moved to a line of their own.
"""

from enum import Enum


class Kind(Enum):
    """How a symbol is spaced (Knuth, The TeXbook, chapter 18)."""

    ORDINARY = "ordinary"
    NAME = "name"
    """A named function: log, det."""
    LARGE = "large"
    """A sum, product or union, or a name such as min: its limits stand above and below it."""
    INTEGRAL = "integral"
    BINARY = "binary"
    RELATION = "relation"
    OPEN = "open"
    CLOSE = "close"
    PUNCTUATION = "punctuation"
    INNER = "inner"
    """A fraction or the like: kept apart from letters beside it."""
    SPACE = "space"
    SIGN = "sign"
    """An operation that stands before one thing only: −x."""


_ORDINARY = """
alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ varkappa ϰ
lambda λ mu μ nu ν xi ξ omicron ο pi π varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi ϕ varphi φ
chi χ psi ψ omega ω digamma ϝ
Alpha Α Beta Β Gamma Γ Delta Δ Epsilon Ε Zeta Ζ Eta Η Theta Θ Iota Ι Kappa Κ Lambda Λ Mu Μ Nu Ν Xi Ξ Omicron Ο
Pi Π Rho Ρ Sigma Σ Tau Τ Upsilon Υ Phi Φ Chi Χ Psi Ψ Omega Ω
varGamma Γ varDelta Δ varTheta Θ varLambda Λ varXi Ξ varPi Π varSigma Σ varUpsilon Υ varPhi Φ varPsi Ψ varOmega Ω
infty ∞ partial ∂ nabla ∇ hbar ħ hslash ℏ ell ℓ Re ℜ Im ℑ wp ℘ aleph ℵ beth ℶ imath ı jmath ȷ mho ℧ eth ð
forall ∀ exists ∃ nexists ∄ emptyset ∅ varnothing ∅ neg ¬ lnot ¬ top ⊤ bot ⊥ angle ∠ measuredangle ∡ triangle △
square □ Box □ blacksquare ■ Diamond ◇ lozenge ◊ bigstar ★ flat ♭ natural ♮ sharp ♯ clubsuit ♣ diamondsuit ♢
heartsuit ♡ spadesuit ♠ prime ′ backprime ‵ degree ° checkmark ✓ surd √ complement ∁ dag † ddag ‡ S § P ¶
copyright © pounds £ euro € yen ¥ AA Å aa å ae æ AE Æ oe œ OE Œ o ø O Ø l ł L Ł ss ß
ldots … dots … dotsc … dotso … cdots ⋯ dotsb ⋯ dotsm ⋯ dotsi ⋯ vdots ⋮ ddots ⋱ iddots ⋰
vert | lvert | rvert | Vert ‖ lVert ‖ rVert ‖ | ‖ backslash \\ _ _ % % $ $ & & # # colon : lq ‘ rq ’
textbackslash \\ textasciitilde ~ textasciicircum ^ textbar |
"""
_LARGE = """
sum ∑ prod ∏ coprod ∐ bigcup ⋃ bigcap ⋂ bigsqcup ⨆ bigvee ⋁ bigwedge ⋀ bigoplus ⨁ bigotimes ⨂ bigodot ⨀ biguplus ⨄
"""
_INTEGRALS = "int ∫ iint ∬ iiint ∭ oint ∮ oiint ∯ smallint ∫"
_BINARY = """
pm ± mp ∓ times × div ÷ cdot · ast ∗ star ⋆ circ ∘ bullet • cap ∩ cup ∪ uplus ⊎ sqcap ⊓ sqcup ⊔ vee ∨ lor ∨
wedge ∧ land ∧ setminus ∖ smallsetminus ∖ wr ≀ diamond ⋄ oplus ⊕ ominus ⊖ otimes ⊗ oslash ⊘ odot ⊙ amalg ⨿
dagger † ddagger ‡ bigtriangleup △ bigtriangledown ▽ triangleleft ◁ triangleright ▷ bigcirc ◯ ltimes ⋉ rtimes ⋊
boxplus ⊞ boxminus ⊟ boxtimes ⊠ boxdot ⊡ dotplus ∔ barwedge ⊼ veebar ⊻ centerdot · intercal ⊺ doublecap ⋒ doublecup ⋓
curlywedge ⋏ curlyvee ⋎ circledast ⊛ circledcirc ⊚ circleddash ⊝
"""
_RELATIONS = """
le ≤ leq ≤ ge ≥ geq ≥ leqslant ⩽ geqslant ⩾ ll ≪ gg ≫ lll ⋘ ggg ⋙ ne ≠ neq ≠ lt < gt > equiv ≡ sim ∼ simeq ≃
approx ≈ approxeq ≊ cong ≅ doteq ≐ coloneqq ≔ eqqcolon ≕ triangleq ≜ propto ∝ varpropto ∝ asymp ≍ bowtie ⋈
lesssim ≲ gtrsim ≳ lessgtr ≶ gtrless ≷ prec ≺ succ ≻ preceq ⪯ succeq ⪰ preccurlyeq ≼ succcurlyeq ≽ precsim ≾ succsim ≿
in ∈ notin ∉ ni ∋ owns ∋ subset ⊂ supset ⊃ subseteq ⊆ supseteq ⊇ subsetneq ⊊ supsetneq ⊋ nsubseteq ⊈ nsupseteq ⊉
sqsubset ⊏ sqsupset ⊐ sqsubseteq ⊑ sqsupseteq ⊒ perp ⊥ parallel ∥ nparallel ∦ mid | nmid ∤ vdash ⊢ dashv ⊣ models ⊨
vDash ⊨ Vdash ⊩ smile ⌣ frown ⌢ therefore ∴ because ∵ between ≬ ncong ≇ nsim ≁ nless ≮ ngtr ≯ nleq ≰ ngeq ≱
leftarrow ← gets ← rightarrow → to → leftrightarrow ↔ Leftarrow ⇐ Rightarrow ⇒ Leftrightarrow ⇔ uparrow ↑ downarrow ↓
updownarrow ↕ Uparrow ⇑ Downarrow ⇓ Updownarrow ⇕ nearrow ↗ searrow ↘ swarrow ↙ nwarrow ↖ mapsto ↦ mapsfrom ↤
longleftarrow ⟵ longrightarrow ⟶ longleftrightarrow ⟷ Longleftarrow ⟸ Longrightarrow ⟹ Longleftrightarrow ⟺
longmapsto ⟼ implies ⟹ impliedby ⟸ iff ⟺ hookleftarrow ↩ hookrightarrow ↪ leftharpoonup ↼ rightharpoonup ⇀
leftharpoondown ↽ rightharpoondown ⇁ rightleftharpoons ⇌ leftrightharpoons ⇋ leadsto ⇝ rightsquigarrow ⇝ nleftarrow ↚
nrightarrow ↛ nRightarrow ⇏ nLeftarrow ⇍ rightrightarrows ⇉ leftleftarrows ⇇ rightleftarrows ⇄ leftrightarrows ⇆
leqq ≦ geqq ≧ lessapprox ⪅ gtrapprox ⪆ trianglelefteq ⊴ trianglerighteq ⊵ vartriangleleft ⊲ vartriangleright ⊳
backsim ∽ nprec ⊀ nsucc ⊁ nvdash ⊬ nvDash ⊭ Subset ⋐ Supset ⋑ circeq ≗ circlearrowleft ↺ circlearrowright ↻
twoheadrightarrow ↠ twoheadleftarrow ↞ rightarrowtail ↣ curvearrowright ↷ curvearrowleft ↶ multimap ⊸ upharpoonright ↾
"""
_OPENING = "langle ⟨ lfloor ⌊ lceil ⌈ { { lbrace { lbrack [ lgroup ( llbracket ⟦ lmoustache ⎰"
_CLOSING = "rangle ⟩ rfloor ⌋ rceil ⌉ } } rbrace } rbrack ] rgroup ) rrbracket ⟧ rmoustache ⎱"


def _table(words: str, kind: Kind) -> dict[str, tuple[str, Kind]]:
    parts = words.split()
    return {name: (character, kind) for name, character in zip(parts[::2], parts[1::2], strict=True)}


SYMBOLS = (
    _table(_ORDINARY, Kind.ORDINARY)
    | _table(_LARGE, Kind.LARGE)
    | _table(_INTEGRALS, Kind.INTEGRAL)
    | _table(_BINARY, Kind.BINARY)
    | _table(_RELATIONS, Kind.RELATION)
    | _table(_OPENING, Kind.OPEN)
    | _table(_CLOSING, Kind.CLOSE)
)
NAMES = frozenset(
    """
    arccos arcsin arctan arg cos cosh cot coth csc deg dim exp hom ker lg ln log sec sin sinh tan tanh
    """.split()
)
LIMIT_NAMES = {name: name for name in "det gcd inf lim max min Pr sup argmin argmax esssup".split()} | {
    "limsup": "lim sup",
    "liminf": "lim inf",
    "injlim": "inj lim",
    "projlim": "proj lim",
}
CHARACTERS = {
    **{character: (character, Kind.RELATION) for character in "=<>"},
    ":": (":", Kind.RELATION),
    "+": ("+", Kind.BINARY),
    "-": ("−", Kind.BINARY),
    "*": ("∗", Kind.BINARY),
    **{character: (character, Kind.OPEN) for character in "(["},
    **{character: (character, Kind.CLOSE) for character in ")]!?"},
    **{character: (character, Kind.PUNCTUATION) for character in ",;"},
    "~": (" ", Kind.SPACE),
}
"""What is typed as it is. Characters typed for themselves (≤, ∑) are known from the commands' meanings."""
for _character, _kind in list(SYMBOLS.values()):
    CHARACTERS.setdefault(_character, (_character, _kind))
SPACES = {
    **dict.fromkeys(
        (",", ":", ";", ">", " ", "thinspace", "medspace", "thickspace", "enspace", "space", "nobreakspace"), " "
    ),
    "!": "",
    "negthinspace": "",
    "quad": "  ",
    "qquad": "    ",
}
INVISIBLE = frozenset(
    """
    limits nolimits nonumber notag displaystyle textstyle scriptstyle scriptscriptstyle big Big bigg Bigg bigl Bigl
    biggl Biggl bigr Bigr biggr Biggr bigm Bigm biggm Biggm mathstrut strut centering rm bf it cal mathopen mathclose
    mathord mathbin mathrel mathpunct mathinner relax allowbreak boldmath displaylimits
    """.split()
)
"""They say how TeX should set something; here nothing of it can be seen."""
PLAIN_FONTS = frozenset(
    "mathrm mathit mathbf mathsf mathtt mathnormal boldsymbol bm symbf symrm ensuremath mathop smash".split()
)
TEXTS = frozenset("text textrm textit textbf textsf texttt textnormal mbox hbox emph textup textsc".split())
_REPLACED = {
    **dict(zip((0x1D49D, 0x1D4A0, 0x1D4A1, 0x1D4A3, 0x1D4A4, 0x1D4A7, 0x1D4A8, 0x1D4AD), "ℬℰℱℋℐℒℳℛ", strict=True)),
    **dict(zip((0x1D4BA, 0x1D4BC, 0x1D4C4), "ℯℊℴ", strict=True)),
    **dict(zip((0x1D506, 0x1D50B, 0x1D50C, 0x1D515, 0x1D51D), "ℭℌℑℜℨ", strict=True)),
    **dict(zip((0x1D53A, 0x1D53F, 0x1D545, 0x1D547, 0x1D548, 0x1D549, 0x1D551), "ℂℍℕℙℚℝℤ", strict=True)),
}
"""Letters that Unicode had before it had their alphabets."""
_ALPHABETS = {"mathcal": 0x1D49C, "mathscr": 0x1D49C, "mathfrak": 0x1D504, "mathbb": 0x1D538}


def in_alphabet(command: str, letter: str) -> str:
    """A letter as double-struck, script or Fraktur; anything else as it is."""
    start = _ALPHABETS.get(command)
    if start is None or len(letter) != 1:
        return letter
    if letter == "1" and command == "mathbb":
        return "𝟙"
    if "A" <= letter <= "Z":
        code = start + ord(letter) - ord("A")
    elif "a" <= letter <= "z":
        code = start + 26 + ord(letter) - ord("a")
    else:
        return letter
    return _REPLACED.get(code) or chr(code)


ALPHABETS = frozenset(_ALPHABETS)
_HIGH = dict(
    zip(
        "0123456789+−=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW′∗*†‡∘⊤°",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ′**†‡°ᵀ°",
        strict=True,
    )
)
_LOW = dict(zip("0123456789+−=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))


def raised(text: str) -> str | None:
    """In superscript characters; None where there is none for one of them."""
    return "".join(_HIGH[c] for c in text) if text and all(c in _HIGH for c in text) else None


def lowered(text: str) -> str | None:
    """In subscript characters; None where there is none for one of them."""
    return "".join(_LOW[c] for c in text) if text and all(c in _LOW for c in text) else None


DELIMITERS = {
    **{character: character for character in "()[]|/<>"},
    **{f"\\{name}": SYMBOLS[name][0] for name in (*_OPENING.split()[::2], *_CLOSING.split()[::2])},
    **{
        f"\\{name}": SYMBOLS[name][0] for name in ("vert", "lvert", "rvert", "Vert", "lVert", "rVert", "|", "backslash")
    },
    **{f"\\{name}": SYMBOLS[name][0] for name in ("uparrow", "downarrow", "updownarrow")},
    **{character: character for character in "⟨⟩⌊⌋⌈⌉‖⟦⟧"},
    "\\mid": "|",
    "<": "⟨",
    ">": "⟩",
    ".": "",
}
"""What may stand after \\left, \\middle and \\right."""
ACCENTS = {
    "hat": ("^", "\u0302"),
    "widehat": ("^", "\u0302"),
    "check": ("ˇ", "\u030c"),
    "tilde": ("~", "\u0303"),
    "widetilde": ("~", "\u0303"),
    "bar": ("_", "\u0304"),
    "overline": ("_", "\u0305"),
    "vec": ("→", "\u20d7"),
    "overrightarrow": ("→", "\u20d7"),
    "overleftarrow": ("←", "\u20d6"),
    "dot": (".", "\u0307"),
    "ddot": ("¨", "\u0308"),
    "breve": ("˘", "\u0306"),
    "acute": ("´", "\u0301"),
    "grave": ("`", "\u0300"),
    "mathring": ("°", "\u030a"),
    "underline": ("▔", "\u0332"),
}
"""The mark on a line of its own, and as a combining character."""
