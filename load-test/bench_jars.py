"""Resolve the jars of a peer into a class path: `python bench_jars.py FILE ENDPOINT` (jgo, Maven).

A process of its own, so that what jgo prints stays in a log and a failure is an exit code.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Download what is missing and write the list of jars."""
    import jgo  # noqa: PLC0415 - only this process needs it
    from jgo.env import _builder  # noqa: PLC0415

    # jgo would fetch a whole JDK just to tell modules from plain jars; all go on one class path.
    _builder.get_baseline_jar_tool = lambda: None
    file, endpoint = Path(sys.argv[1]), sys.argv[2]
    found = jgo.build(endpoint)
    jars = [str(jar) for jar in (*found.class_path_jars, *found.module_path_jars)]
    file.write_text(json.dumps(jars, indent=1))


if __name__ == "__main__":
    main()
