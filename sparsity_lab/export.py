"""Export a run's model to its own folder: `python -m sparsity_lab.export RUN OUT [--layout released]`.

`plain` writes model.safetensors, model.json, tokenizer.json, and a README.md with the code that loads them.
`released` writes the layout of openai/circuit_sparsity with its tokenizer files. It adds tokenizer.json,
because that layout has no field for the tokenizer's pattern.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Literal

from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_text
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.data.tokenizer_folder import JSON, write_pair
from sparsity_lab.importers.released import write_released
from sparsity_lab.model.checkpoints import load_model, save_model

log = logging.getLogger(__name__)
Layout = Literal["plain", "released"]
LAYOUTS: tuple[Layout, ...] = ("plain", "released")

SNIPPET = """\
from pathlib import Path; import torch
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import load_model
model, tokenizer = load_model(Path("{out}")), load_tokenizer(Path("{out}/tokenizer.json"))
logits_btv = model(torch.tensor([tokenizer.encode("def area(width, height):\\n")]))
"""


def export(run: Path, out: Path, layout: Layout = "plain") -> None:
    """Write the model and the tokenizer of the run's folder `run` into the new folder `out`.

    Raises:
        UserError: `run` is not a run's folder, `out` is not empty, or the layout cannot express a setting.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty")
    folder = RunFolder(run)
    for part in (folder.model, folder.tokens):
        if not part.is_dir():
            raise UserError(f"{run}: not a run's folder, it has no {part.name}/")
    model, tokenizer = load_model(folder.model), load_tokenizer(folder.tokens / JSON)
    if layout == "released":
        write_released(model, out)
        write_pair(tokenizer, out)
    else:
        save_model(model, out)
        write_text(out / "README.md", f"```python\n{SNIPPET.format(out=out.name)}```\n")
    tokenizer.save(out / JSON)
    log.info("%s: %s", out, ", ".join(sorted(path.name for path in out.iterdir())))


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Export the model of a run to its own folder.")
    parser.add_argument("run", type=Path, help="a run's folder, as runs/single/NAME-HASH")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="plain")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        export(given.run, given.out, given.layout)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
