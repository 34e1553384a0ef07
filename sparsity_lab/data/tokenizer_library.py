"""Write a tokenizer as the file of the library `tokenizers`, for `AutoTokenizer` of `transformers`.

Special tokens inside a text stay ordinary text (`split_special_tokens`), so that the ids are those of this
project. Texts with runs of 100,000 letters, digits or blanks are the exception (`long_runs.py`).
"""

from pathlib import Path

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.data.added_tokens import AddedToken
from sparsity_lab.data.tokenizer import END_OF_TEXT, Tokenizer
from sparsity_lab.data.tokenizer_check import library_of_merges, match_library
from sparsity_lab.data.tokenizer_config import CONFIG
from sparsity_lab.data.tokenizer_folder import GPT2_PATTERN, JSON, ids_and_merges


def write_library(tokenizer: Tokenizer, folder: Path, n_ctx: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        UserError: the library is not installed, cannot read the pattern, or gives other ids on a sample.
    """
    try:
        import tokenizers
    except ImportError:
        raise UserError("this needs the extra [transformers]: pip install transformers") from None
    pattern = tokenizer.encoding._pat_str
    added = tokenizer.added.tokens if tokenizer.added else ()
    listed = {token.content for token in added}
    specials = {name: id for name, id in tokenizer.encoding._special_tokens.items() if name not in listed}
    added += tuple(AddedToken(content=name, id=id, special=True) for name, id in specials.items())
    ids, merges = ids_and_merges(tokenizer)
    own_pattern = None if pattern == GPT2_PATTERN else pattern  # None is the library's built-in pattern
    theirs = library_of_merges(ids, merges, own_pattern, added, str(folder / JSON))
    if theirs is None:
        raise UserError(f"{folder / JSON}: the tokenizers library cannot read the pattern {pattern!r}")
    match_library(tokenizer, theirs, [token.content for token in added], str(folder / JSON))
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.save(str(folder / JSON))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": n_ctx,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    write_json(folder / CONFIG, config)
