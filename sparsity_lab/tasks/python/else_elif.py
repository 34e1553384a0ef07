"""`elif` takes a condition and a colon, `else` of a conditional expression a value and the line's end."""

import random

from sparsity_lab.data.python.blocks import if_elif
from sparsity_lab.data.python.lexicon import INDENT
from sparsity_lab.data.python.lines import bind_alternative, bind_ternary, print_ternary, remark
from sparsity_lab.data.python.pen import Pen
from sparsity_lab.data.python.values import short_condition
from sparsity_lab.tasks.prompts import DEEPER, FUNCTION, MODULE, context
from sparsity_lab.tasks.task import Pair, Task

TERNARY = (bind_ternary, print_ternary, bind_alternative)
COMPETING = (*(if_elif,) * 4, *TERNARY, remark("else"))


def make(rng: random.Random) -> Pair:
    pen = Pen(rng)
    start, pad = context(
        pen,
        COMPETING,
        (MODULE, MODULE, FUNCTION, DEEPER),
        (1, 1),
        elsewhere=0.7,
    )
    chain = f"{start}{pad}if {short_condition(pen)}:\n{pen.pick(TERNARY)(pen, pad + INDENT)}{pad}"
    lead = pen.pick((f"{pen.known()} =", f"{pen.known()} +=", "return" if pad else f"{pen.known()} +="))
    value, condition, last = pen.known(), pen.known(), short_condition(pen)
    return Pair(f"{chain}elif {last}", f"{chain}{lead} {value} if {condition} else {last}", (":\n", "\n"))


TASK = Task(
    "else_elif",
    "x after elif is followed by :, x after else by the end of the line",
    make,
    caveat="the paper's prompts end in the keywords, two tokens that leave nothing to compute; "
    "here both end in the name after the keyword, and the else is that of a conditional expression; "
    "the keyword `elif` answers most prompts, wherever it stands",
    kind="position",
)
