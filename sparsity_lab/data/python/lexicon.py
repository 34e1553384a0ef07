"""The words of `tinypython`.

Copies draw from two hundred names. Each name is one token after a space at the default vocabulary, so
that a model spends its capacity on structure and not on spelling. A name says nothing of its variable's type.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIELDS = _words(
    """
    name size color count value width height price speed weight level score owner title label message page
    node state status limit index total depth radius length volume energy angle
    """
)
"""Names of attributes, which also name variables."""

NAMES = FIELDS + _words(
    """
    item user text line word key point child field ready active row column cell letter number digit token
    symbol group order event task job step stage phase turn player team city country street region place
    room door window table chair desk paper pencil image picture frame camera screen button menu panel
    border margin offset origin target source server client host port signal channel packet queue
    parent leader member guest friend driver pilot doctor teacher student master author editor reader
    writer balance amount payment invoice record budget profit salary cost rate ratio factor scale
    degree minute hour day week month year season planet star river mountain forest island bridge road
    train plane ship engine wheel motor battery sensor circuit
    """
)
"""Names of variables that hold one thing: a number, a string, a flag, None or an instance."""

COLLECTIONS = _words(
    """
    items names values lines words users rows keys nodes points pages fields groups orders events tasks
    steps teams cities rooms tables images frames tokens letters numbers records scores prices colors labels
    shapes layers blocks links paths routes parts pieces cards
    """
)
"""Names of variables that hold many things: a list, a dict or a set."""

ACCUMULATORS = _words(
    """
    result output current buffer answer found seen summary collected merged report history content done
    pending visited
    """
)
"""Names of variables that a loop fills: a set, a string, a list or a number."""

FUNCTIONS = _words(
    """
    load save read write get find make build run send update check move parse show compute merge split
    collect create draw fill clean sort trim select remove insert reset start stop fetch store
    measure convert apply reduce render f
    """
)
CLASSES = _words(
    """
    Robot Animal Player Account Book Car Shape Person Node Game House Tree Ship Store School Garden Engine
    Camera Planet Library
    """
)
WORDS = _words(
    """
    hello world red green blue black white apple bread milk water fire cold warm small large happy good
    fast slow sun moon rain snow soft hard sweet salt sand stone gold silver bird fish horse sheep lemon
    cherry butter sugar pepper coffee
    """
)
INPUT_FILES = _words("input config data settings source options users words")
OUTPUT_FILES = _words("output report backup summary result export copy archive")
EXTENSIONS = _words(".txt .csv .json .log")
OPERATORS = _words("+ - *")
DIGITS = _words("1 2 3 4 5 6 7 8 9")
KEYWORD_COMMENTS = {
    "for": ("wait for", "look for"),
    "while": ("stop while", "wait while"),
    "if": ("check if", "stop if"),
    "else": ("or else",),
    "with": ("start with", "go with"),
    "in": ("look in",),
}
"""Keywords that comments use as words, so that a keyword alone does not tell what a line is."""
COMMENTS = (
    *_words("update check read get keep use compute set"),
    *(phrase for phrases in KEYWORD_COMMENTS.values() for phrase in phrases),
)
DETERMINERS = _words("the a every this our")
MODULES = {
    "math": ("sqrt", "number"),
    "time": ("sleep", "number"),
    "os": ("remove", "string"),
    "re": ("compile", "string"),
    "random": ("choice", "list"),
    "json": ("dumps", "dict"),
}
"""Module → the function of it that programs call, and the type of its argument."""
INDENT = "    "
