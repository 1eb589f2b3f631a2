"""`python -m ingest uplink|downlink`.

Everything is set by environment variables, which --help lists.
"""

import argparse
import sys

from ingest.settings import DownlinkSettings, IngestSettings, UplinkSettings

_PROCESSES: dict[str, tuple[str, type[IngestSettings]]] = {
    "uplink": ("take what cars publish over MQTT to Kafka", UplinkSettings),
    "downlink": (
        "bring commands and desired states from Kafka to cars over MQTT",
        DownlinkSettings,
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one process; the exit code: 0 stopped, 1 ended by an error, 2 wrong usage or setting."""
    parser = argparse.ArgumentParser(
        prog="python -m ingest",
        description="Between MQTT and Kafka, both ways. Stops on SIGTERM, finishing what it began.",
        epilog="`python -m ingest uplink --help` lists the environment variables of a process.",
    )
    processes = parser.add_subparsers(dest="process", required=True, metavar="{uplink,downlink}")
    for name, (does, settings) in _PROCESSES.items():
        processes.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=_environment(settings),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    # Imported here, so that --help and a wrong word need no Kafka client.
    if parser.parse_args(arguments).process == "uplink":
        from ingest import uplink  # noqa: PLC0415

        return uplink.main()
    from ingest import downlink  # noqa: PLC0415

    return downlink.main()


def _environment(settings: type[IngestSettings]) -> str:
    width = max(map(len, settings.model_fields))
    rows = [
        f"  {name.upper():<{width}} {field.description} [{field.default}]"
        for name, field in settings.model_fields.items()
    ]
    return "\n".join(("environment variables [default]:", *rows))


if __name__ == "__main__":
    sys.exit(main())
