"""Write what `transformers` needs beside a model's own two files to load it with `AutoModelForCausalLM`.

| file | content |
|---|---|
| `config.json` | the model's config, and where its code is (`auto_map`) |
| `modeling_sparsity_lab.py` | that code, a copy of the file beside this one |
| `generation_config.json` | the token that ends a text |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer, for `AutoTokenizer` |

The tensors are read from `model.safetensors` as it is, under the names that they have here.
"""

import shutil
from pathlib import Path

from sparsity_lab.core.files import write_json
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.data.tokenizer_library import write_library
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import Site

CODE = "modeling_sparsity_lab"
OURS_ALONE = {"kind", "tied_embeddings"}  # keys of ours that the library's config has under another name


def write_for_transformers(config: ModelConfig, vocab_size: int, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files into `folder`, where `model.safetensors` lies.

    Raises:
        UserError: the tokenizer cannot be written for the library.
    """
    write_library(tokenizer, folder, config.n_ctx)
    shutil.copyfile(Path(__file__).with_name(f"{CODE}.py"), folder / f"{CODE}.py")
    ends = {"eos_token_id": tokenizer.end_of_text, "pad_token_id": tokenizer.end_of_text}
    theirs = {
        "model_type": "sparsity_lab",
        "architectures": ["SparsityLabForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{CODE}.SparsityLabConfig",
            "AutoModelForCausalLM": f"{CODE}.SparsityLabForCausalLM",
        },
        "dtype": "float32",
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        "use_cache": True,
        **config.model_dump(mode="json", exclude=OURS_ALONE),
        "n_head": config.heads,
        "d_mlp": config.width(Site.MLP_NEURON),
        **ends,
    }
    write_json(folder / "config.json", theirs)
    write_json(folder / "generation_config.json", ends)
