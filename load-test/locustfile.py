"""`locust -f load-test/locustfile.py --host mqtt://127.0.0.1:1883 --headless -u 200 -r 50 -t 4m`.

Cars are made when a test starts and closed when it has stopped, so a test run from Locust's page
gives a log of its own. `locust --help` lists the options (group "cartwin fleet").
"""

import sys
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.runners import MasterRunner

# The services' wire contracts and the simulator lie beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fleet_options
from car_user import CarUser  # noqa: F401 - Locust finds it here
from fleet import Fleet


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Locust asks for options."""
    fleet_options.add(parser)


@events.test_start.add_listener
def start(environment: Any, **_: Any) -> None:
    """Make the cars of this process; a Locust master has none."""
    if isinstance(environment.runner, MasterRunner):
        return
    try:
        fleet = Fleet(environment.parsed_options, environment.host, environment.runner.worker_index)
    except ValueError as error:
        print(f"fleet: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    environment.fleet = fleet
    environment.fleet_greenlet = gevent.spawn(fleet.run, gevent.sleep)
    # Without physics or log (a full disk) the run proves nothing: end it.
    environment.fleet_greenlet.link_exception(lambda _greenlet: environment.runner.quit())


@events.test_stop.add_listener
def stop(environment: Any, **_: Any) -> None:
    """All cars have said goodbye: write the truth and close the log."""
    if isinstance(environment.runner, MasterRunner):
        return
    environment.fleet_greenlet.kill()
    environment.fleet.close()
