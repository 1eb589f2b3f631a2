"""`cartwin`: the command line. It starts processes and imports none of them."""

import sys

import typer

from twin.cli import bench, broker, demo, processes, query, rejected, replay, up

app = typer.Typer(
    name="cartwin",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Digital twins of connected cars: MQTT to Kafka to twins, scored for engine failure,
    with commands back to the car.

    Start here: `cartwin demo` drives 200 cars round the whole loop and checks every message;
    `cartwin up` starts the stack and keeps it running.

    Exit codes: 0 ok, 1 a figure or a check was missed, 2 wrong usage.""",
)

app.command()(up.up)
app.command()(demo.demo)
app.command()(replay.replay)
processes.register(app)
app.add_typer(query.app, name="twin")
app.add_typer(rejected.app, name="rejected")
app.add_typer(bench.app, name="bench")
app.add_typer(broker.app, name="broker")


def main() -> None:
    """Entry point of the `cartwin` script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
