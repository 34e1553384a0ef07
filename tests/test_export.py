"""A run's model in a folder of its own: the documented snippet loads it without Hydra or Lightning."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from micro import small_model

from sparsity_lab.data.tokenizer import train_bpe
from sparsity_lab.data.tokenizer_folder import read_folder
from sparsity_lab.export import SNIPPET, TRANSFORMERS_SNIPPET, main
from sparsity_lab.importers.released import read_released
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.stages.opened import open_folder

ROOT = Path(__file__).parents[1]
TEXTS = [f"def area_{i}(width, height):\n    return width * {i} + height\n\n\n" for i in range(50)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run"
    save_model(
        Transformer(ModelConfig(n_layer=1, d_model=16, n_ctx=32, bigram="none"), 300), folder / "model"
    )
    (folder / "tokens").mkdir()
    train_bpe(TEXTS, 300).save(folder / "tokens" / "tokenizer.json")
    return folder


def test_the_snippet_in_the_readme_loads_what_was_exported(run: Path, tmp_path: Path) -> None:
    main([str(run), str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.md", "model.json", "model.safetensors", "tokenizer.json")
    }
    readme = (tmp_path / "out" / "README.md").read_text()
    snippet = readme.split("```python\n")[1].split("```")[0]
    assert snippet == SNIPPET.format(out="out")
    assert len(snippet.splitlines()) == 5
    check = (
        "import sys; assert not {'hydra', 'omegaconf', 'lightning', 'wandb'} & set(sys.modules)\n"
        "torch.save(logits_btv, 'logits.pt')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", snippet + check], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0
    ids = read_folder(tmp_path / "out").encode("def area(width, height):\n")
    expected = load_model(run / "model")(torch.tensor([ids]))
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected)


def test_the_released_layout_holds_the_same_model_and_tokenizer(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main([str(run), str(out), "--layout", "released"])
    assert {path.name for path in out.iterdir()} == {
        *("beeg_config.json", "final_model.pt", "vocab.bpe", "encoder.json", "tokenizer.json")
    }
    ids = read_folder(out).encode(TEXTS[3])
    assert ids == read_folder(run / "tokens").encode(TEXTS[3])
    assert torch.equal(
        read_released(out)(torch.tensor([ids])), load_model(run / "model")(torch.tensor([ids]))
    )


def test_the_snippet_for_transformers_runs_without_sparsity_lab(run: Path, tmp_path: Path) -> None:
    main([str(run), str(tmp_path / "out"), "--layout", "transformers"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.md", "model.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("config.json", "generation_config.json", "modeling_sparsity_lab.py"),
    }
    snippet = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert snippet == TRANSFORMERS_SNIPPET.format(out="out")
    assert snippet in (ROOT / "docs" / "other_tools.md").read_text().replace("OUT", "out")
    check = (
        "import sys, torch; assert 'sparsity_lab' not in sys.modules\n"
        "torch.save(model(**inputs).logits, 'logits.pt'); open('text', 'w').write(text)\n"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", snippet + check], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    ids = read_folder(tmp_path / "out").encode("def area(width, height):\n")
    assert ids == read_folder(run / "tokens").encode("def area(width, height):\n")
    expected = open_folder(tmp_path / "out").model(torch.tensor([ids]))
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=0, atol=1e-4)
    assert (tmp_path / "text").read_text().startswith("def area(width, height):\n")


def test_mistakes_are_told_in_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not a run's folder, it has no model/"):
        main([str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="is not empty"):
        main([str(run), str(run)])
    save_model(small_model(activation="gelu_tanh"), run / "model")
    with pytest.raises(SystemExit, match="activation: gelu_tanh: cannot be expressed in the released layout"):
        main([str(run), str(tmp_path / "out"), "--layout", "released"])
    save_model(small_model(gated_mlp=True, positions="rotary"), run / "model")
    with pytest.raises(SystemExit, match="gated_mlp: True: cannot be expressed in the released layout"):
        main([str(run), str(tmp_path / "out"), "--layout", "released"])
