"""Writes what Kubernetes takes from this folder: a PrometheusRule and a Grafana dashboard for each board.

    python -m k8s.observability.build           write components/metrics/rules.yaml and dashboards/
    python -m k8s.observability.build --check   say which of them are stale, and end with 1

Dashboards are for Grafana 11.6 (grafana-foundation-sdk, the schema's own types).
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from k8s.observability.panels import BOARDS, Board, Panel

HERE: Final = Path(__file__).parent
TARGET: Final = HERE.parent / "components" / "metrics"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH, _HEIGHT = 12, 8


def files() -> dict[Path, str]:
    """Every file with its text."""
    made = {TARGET / "rules.yaml": rules()}
    for board in BOARDS:
        made[TARGET / "dashboards" / f"{board.uid}.json"] = (
            JSONEncoder(sort_keys=True, indent=1).encode(_dashboard(board)) + "\n"
        )
    return made


def rules() -> str:
    """rules.yml as the custom resource that prometheus-operator takes."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "cartwin"},
        "spec": yaml.safe_load((HERE / "rules.yml").read_text()),
    }
    head = "# Written by `python -m k8s.observability.build` from k8s/observability/rules.yml.\n"
    return head + str(yaml.safe_dump(resource, sort_keys=False, width=1000))


def _dashboard(board: Board) -> Any:
    made = (
        dashboard.Dashboard(f"cartwin / {board.title}")
        .uid(f"cartwin-{board.uid}")
        .description(board.about)
        .tags(["cartwin"])
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    )
    for panel in board.panels:
        made = made.with_panel(_panel(panel))
    return made.build()


def _panel(panel: Panel) -> Any:
    made: Any = stat.Panel() if panel.stat else timeseries.Panel()
    made = made.title(panel.title).unit(panel.unit).datasource(_SOURCE).span(_WIDTH).height(_HEIGHT)
    for query, legend in panel.queries:
        made = made.with_target(prometheus.Dataquery().expr(query).legend_format(legend))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(description="Write what Kubernetes takes from this folder.")
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    check = parser.parse_args(arguments).check
    stale = [
        path for path, text in files().items() if not path.exists() or path.read_text() != text
    ]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is stale: python -m k8s.observability.build\n")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files()[path])
        sys.stdout.write(f"{path}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
