"""The GraphQL documents with which the console asks whether Dagster works; they are answered without a login.

They tell when each daemon was last heard of and whether the code location answers, and nothing else. The second lets
the code server plan a run, for what the webserver knows of a code server that is gone it goes on telling.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import Scope

from whalefall_capacity.launch_request import REPOSITORY
from whalefall_capacity.tasks import LOCATION, PARTITION_MAINTENANCE

GRAPHQL_PATH = "/graphql"
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime } } } }"
CODE_LOCATION = f"""{{
  executionPlanOrError(
    pipeline: {{
      pipelineName: "{PARTITION_MAINTENANCE.key}"
      repositoryName: "{REPOSITORY}"
      repositoryLocationName: "{LOCATION}"
    }}
    mode: "default"
  ) {{ __typename }}
}}"""


def asks_for_readiness(scope: Scope) -> bool:
    """Tell whether a request is one of those documents, by GET, and nothing more."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != GRAPHQL_PATH:
        return False
    parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return parameters in ([("query", DAEMONS)], [("query", CODE_LOCATION)])
