"""`whalefall-capacity engine`: the engines that are known, and engine files tried before a fleet relies on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.collection.fleet import check_fleet, visit_fleet
from whalefall_capacity.collection.sizes import Measurement, Target, Visit
from whalefall_capacity.collection.visit import Checkup
from whalefall_capacity.commands.fleet import print_checkups, print_grants
from whalefall_capacity.commands.output import JsonOption, print_result, print_rows, print_table, say
from whalefall_capacity.engine_catalog import BUILT_IN, engine_file, known_engines
from whalefall_capacity.errors import EngineFileError
from whalefall_capacity.runtime import collection_limits, name_filters, open_store
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.fleet import id_in_fleet, load_roster

app = typer.Typer(help="The kinds of servers that can be measured.", no_args_is_help=True)

EngineFileArgument = Annotated[Path, typer.Argument(help="The engine file, YAML.", exists=True, dir_okay=False)]


@dataclass(frozen=True)
class KnownEngine:
    """One engine. *problem*: why its servers cannot be measured as it is."""

    name: str
    title: str | None
    driver: str | None
    origin: str
    problem: str | None


@dataclass(frozen=True)
class Trial:
    """What came of one server by an engine file: the check, and the sizes or the error."""

    checkup: Checkup
    measurement: Measurement | None
    error: str | None


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the engines: those built in, and those with an engine file, with what keeps them from being measured.

    Example: whalefall-capacity engine list
    """
    print_rows(
        [_known_engine(name, origin) for name, origin in known_engines().items()],
        as_json,
        "engines",
        {
            "engine": lambda engine: engine.name,
            "title": lambda engine: engine.title,
            "driver": lambda engine: engine.driver,
            "from": lambda engine: engine.origin,
            "problem": lambda engine: engine.problem,
        },
    )


@app.command()
def check(file: EngineFileArgument) -> None:
    """Check an engine file by its schema; every problem is printed with its line and its field. Nobody is asked.

    Example: whalefall-capacity engine check firebird.yaml
    """
    from whalefall_capacity.collection.sql.engine_file import read_engine_file
    from whalefall_capacity.collection.sql.session import driver_problem

    engine = read_engine_file(file.resolve())
    queries = ", ".join(name for name, query in engine.queries if query is not None)
    say(f"{file}: engine {engine.name} ({engine.title}), queries {queries}")
    if problem := driver_problem(engine):
        say(f"warning: {problem}")


@app.command("try")
def try_command(
    file: EngineFileArgument,
    instance: Annotated[str, typer.Option("--instance", help="The server of the fleet to ask.")],
    as_json: JsonOption = False,
) -> None:
    """Check and measure one server of the fleet by an engine file, whatever its engine, and store nothing.

    Exits with 1 if it cannot be measured completely.

    Example: whalefall-capacity engine try firebird.yaml --instance birds
    """
    from whalefall_capacity.collection.sql.engine_file import read_engine_file

    settings = load_settings()
    engine = read_engine_file(file.resolve())
    target = replace(_target_named(settings, instance), engine=engine.name, engine_file=file.resolve())
    limits, filters = collection_limits(settings), name_filters(settings)
    (checkup,) = check_fleet([target], limits, filters, 1)
    (outcome,) = chain.from_iterable(visit_fleet([target], limits, filters, 1))
    if isinstance(outcome, Visit):
        trial = Trial(checkup, outcome.measurement, None)
    else:
        trial = Trial(checkup, None, outcome.error)
    print_result(trial, as_json, lambda trial: _print_trial(target, trial))
    if not checkup.healthy or trial.measurement is None:
        raise typer.Exit(1)


def _target_named(settings: Settings, instance: str) -> Target:
    """Return one server of the fleet; no other password is looked for. Raises EngineFileError."""
    with open_store(settings) as store:
        instance_id = id_in_fleet(store, instance)
        if instance_id is None:
            raise EngineFileError(f"{instance} is not an active instance of the fleet")
        roster = load_roster(store, settings.secret_key, [instance_id])
    for unresolved in roster.unresolved:
        raise EngineFileError(unresolved.error)
    return roster.targets[0]


def _known_engine(name: str, origin: str) -> KnownEngine:
    if origin == BUILT_IN:
        return KnownEngine(name, None, None, origin, None)
    from whalefall_capacity.collection.sql.engine_file import read_engine_file
    from whalefall_capacity.collection.sql.session import driver_problem

    try:
        file = engine_file(name)
        assert file is not None, "it is not built in"
        engine = read_engine_file(file)
    except EngineFileError as error:
        return KnownEngine(name, None, None, origin, str(error))
    return KnownEngine(name, engine.title, engine.driver_name, origin, driver_problem(engine))


def _print_trial(target: Target, trial: Trial) -> None:
    print_checkups([trial.checkup])
    print_grants([trial.checkup], [target])
    measured = trial.measurement
    if measured is None:
        say(trial.error or "")
        return
    sizes = ("size", "data", "logs")
    rows = [
        (
            database.name,
            binary_size(database.size_bytes),
            binary_size(database.data_size_bytes),
            binary_size(database.log_size_bytes),
            database.reason or None,
        )
        for database in measured.databases
    ]
    print_table(f"databases of {target.name}", ("database", *sizes, "not measured"), rows, right=sizes)
    say(f"logs of the instance: {binary_size(measured.log_size_bytes) or 'not known'}")
