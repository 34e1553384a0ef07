"""Draw the effect of steering a dense model through a bridge (Gao et al. 2025, Fig. 9).

    python analysis/plot_steering.py RUN [--out DIR]

RUN holds steering/TASK/steering.json. Writes steering.png and steering.svg (default: into RUN).
"""

from collections.abc import Sequence
from pathlib import Path

from analysis import program
from analysis.pictures import save
from analysis.program import say
from sparsity_lab.bridges.steering_record import Steering, SteeringResult, load_steering
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.program import start
from sparsity_lab.results.drawing import Axes, Figure, FuncFormatter, mpl
from sparsity_lab.results.style import BLUE, GREEN, GREY, STYLE, VERMILION, plain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = program.parser(__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--out", type=Path, help="folder of the picture; default: the run's")
    options = parser.parse_args(arguments)
    try:
        results = load(options.run)
    except UserError as error:
        return program.refuse(error)
    for result in results:
        for line in summary_lines(result):
            say(line)
    out = options.out or options.run
    out.mkdir(parents=True, exist_ok=True)
    for path in save(draw(results), out, "steering"):
        say(f"wrote {path}")
    return 0


def load(run: Path) -> list[SteeringResult]:
    """Load the results below a run's folder, ordered by task.

    Raises:
        UserError: there are no results, or one is unreadable.
    """
    found = [load_steering(path) for path in sorted(run.glob("steering/*/steering.json"))]
    if not found:
        raise UserError(
            f"{run}: no steering/TASK/steering.json here; make some: sparsity_lab.run experiment=bridge"
        )
    return found


def best_together(result: SteeringResult) -> Steering:
    """Return the steering by circuit channels at one boundary that is strongest at full strength."""
    return max(result.steerings[1:-1], key=lambda one: one.probability[-1], default=result.steerings[0])


def summary_lines(result: SteeringResult) -> list[str]:
    """Summarise each steering: probability without and with it, and ratios to none and best random."""
    return [
        f"{result.task}: {one.name}: {one.probability[0]:.4f} to {one.probability[-1]:.4f}, "
        f"{one.times_none:.1f} times none, {one.times_random:.1f} times the best of {len(one.random)} random"
        for one in result.steerings
    ]


def draw(results: Sequence[SteeringResult]) -> Figure:
    """Draw one panel per task: probability of the other prompt's answer against steering strength."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(results), 5.2))
        all_axes = figure.subplots(1, len(results), sharey=True, squeeze=False)
        for axes, result in zip(all_axes[0], results, strict=True):
            _panel(axes, result)
        all_axes[0][0].set_ylim(top=1)
        all_axes[0][0].set_ylabel("Probability of the steered answer")
        return figure


def _panel(axes: Axes, result: SteeringResult) -> None:
    single, together, whole = result.steerings[0], best_together(result), result.steerings[-1]
    against = [(single, GREY)] if whole is single else [(single, GREY), (whole, GREEN)]
    for of, colour in against:
        for index, curve in enumerate(of.random):
            label = plain(f"{len(of.random)} random directions, size of {of.name}") if index == 0 else None
            axes.plot(result.strengths, curve, color=colour, alpha=0.25, linewidth=0.8, label=label)
    axes.plot(
        result.strengths,
        single.probability,
        "o-",
        color=VERMILION,
        label=plain(f"one channel, {single.name}"),
    )
    if whole is not single:
        axes.plot(result.strengths, whole.probability, "^:", color=GREEN, label=plain(whole.name))
    if together is not single:
        axes.plot(
            result.strengths,
            together.probability,
            "s--",
            color=BLUE,
            label=plain(f"the circuit's {together.name}"),
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("Steering strength")
    axes.set_title(plain(f"{result.task} ({result.pairs} pairs)"), loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)


if __name__ == "__main__":
    start(main)
