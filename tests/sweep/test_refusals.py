"""Whatever Hydra refuses is told in one line that says what is allowed, or what was meant."""

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab import run
from sparsity_lab.cost import describe
from sparsity_lab.sweep.refusals import command_line_error, is_refusal, refusal, with_origin
from sparsity_lab.sweep.sweeper import folder_of


def refused(*arguments: str) -> str:
    conf = folder_of("conf")
    with initialize_config_dir(str(conf), version_base="1.3"), pytest.raises(Exception) as caught:  # noqa: PT011
        compose("config", list(arguments))
    assert is_refusal(caught.value)
    line = refusal(caught.value, arguments, conf)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("model.dmodel=64", "model.dmodel: unknown key; did you mean model.d_model?"),
        ("d_model=64", "d_model: unknown key; did you mean model.d_model?"),
        ("tokeniser.vocab_size=300", "tokeniser.vocab_size: unknown key; did you mean tokenizer.vocab_size?"),
        ("modle=dense", "modle: unknown key; did you mean model?"),
        ("corpus.pth=x", "corpus.pth: unknown key; did you mean corpus.path?"),  # of another option
        (
            "sweep=width_l0",
            "sweep=width_l0: a sweep is chosen with a plus and run with -m: +sweep=width_l0 -m",
        ),
        ("reference=null", "reference=null: to leave a group out: ~reference"),
        ("bridge=None", "bridge=None: no such option; to leave a group out: ~bridge"),
        ("root=~/x", "root=~/x: not readable; quote the value: 'root=\"~/x\"'"),
        ("smoke", "smoke: expected KEY=VALUE"),
        ("=", "=: expected KEY=VALUE"),
        ("=3", "=3: expected KEY=VALUE"),
        ("root=\x1b[31m(", "root=\\x1b[31m(: not readable; quote the value: 'root=\"\\x1b[31m(\"'"),
    ],
)
def test_the_line(argument: str, line: str) -> None:
    assert refused(argument) == line


@pytest.mark.parametrize("error", [ValueError("two\n lines"), TypeError("x"), KeyError("a")])
def test_any_error_of_a_library_is_a_line(error: Exception) -> None:
    told = command_line_error(error, ["a=1"], folder_of("conf"))
    assert told is not None
    assert told.startswith(f"the command line is refused: {type(error).__name__}: ")
    assert "\n" not in told


def test_a_fault_of_the_package_keeps_its_traceback() -> None:
    with pytest.raises(AttributeError) as caught:
        describe(None)  # type: ignore[arg-type]
    assert command_line_error(caught.value, ["a=1"], folder_of("conf")) is None


def test_a_key_like_no_other_lists_what_its_section_allows() -> None:
    line = refused("trainer.zzz=1")
    assert line.startswith("trainer.zzz: unknown key; allowed in trainer: tokens, batch_size, ")


def test_an_unknown_option_lists_the_options() -> None:
    assert refused("model=spares") == (
        "model=spares: no such option; did you mean model=sparse?; allowed: "
        + ", ".join(sorted(path.stem for path in folder_of("conf").glob("model/*.yaml")))
    )


def test_the_quoted_value_is_readable() -> None:
    quoted = refused("root=~/x").partition("'")[2].removesuffix("'")
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        assert compose("config", [quoted]).root == "~/x"


def test_a_value_of_an_experiment_is_told_as_its_own() -> None:
    message = "model.d_model: unknown key\ntrainer.tokens: 1: too few\nseed: -1: wrong"
    lines = with_origin(
        message, ["trainer.tokens=1"], {"experiment": "smoke"}, folder_of("conf")
    ).splitlines()
    assert lines[0] == "model.d_model: unknown key; experiment=smoke sets it"
    assert lines[1:] == message.splitlines()[1:]
    lines = with_origin("sweep_name: x: wrong", [], {"sweep": "width_l0"}, folder_of("conf")).splitlines()
    assert lines == ["sweep_name: x: wrong; +sweep=width_l0 sets it"]
    assert with_origin(message, [], {}, folder_of("conf")) == message


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("+sweep=width_l0", "+sweep=width_l0: a sweep is run with -m: +sweep=width_l0 -m\n"),
        ("model.dmodel=64", "model.dmodel: unknown key; did you mean model.d_model?\n"),
    ],
)
def test_the_program_tells_it(
    argument: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
) -> None:
    monkeypatch.setattr("sys.argv", ["run", argument, f"root={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        run.program()
    assert ended.value.code == 1
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("trainer=[1]", "trainer=1: no such option; allowed: default"),
        ("trainer=1", "trainer=1: no such option; allowed: default"),
        ("trainer={a: 1}", "trainer={a:1}: no such option; allowed: default"),
        ("trainer=[[1],[2]]", "trainer=[1]: no such option; allowed: default; trainer=[2]: no such"),
        ("experiment=[smoke,nothing]", "experiment=nothing: no such option; allowed: "),
        ("tasks=[true]", "tasks=True: no such option; allowed: "),
        ("hydra/sweeper=nothing", "hydra/sweeper=nothing: no such option; allowed: basic, grids"),
        ("reference=null", "reference=null: to leave a group out: ~reference"),
        ("=[1]", "=[1]: expected KEY=VALUE"),
        ("/x=[1]", "/x"),
    ],
)
def test_what_is_no_option_of_a_group_names_the_group(
    argument: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["run", argument])
    with pytest.raises(SystemExit):
        run.program()
    assert capsys.readouterr().err.startswith(line)


def test_a_group_is_left_out_by_its_name_alone() -> None:
    error = ValueError("Config group override deletion value must be a string : Override(...)")
    told = command_line_error(error, ["~bridge=0.0", "model=gpt2"], folder_of("conf"))
    assert told == "~bridge=0.0: a group is left out by its name alone; allowed: ~bridge"
