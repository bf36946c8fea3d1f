"""An executor of Dagster with one addition: around the executor itself, and around its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg


class WrappedExecutor(dg.Executor):
    """An executor that is asked in place of another one, and executes as its class says."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def __getattr__(self, name: str) -> Any:
        # Dagster's own loops ask their executor for what it alone has, such as the arguments of Celery's application.
        return getattr(self._executor, name)


class WrappedExecutorDefinition(dg.ExecutorDefinition):
    """The executor *definition*, whose executors are wrapped by *wrap*."""

    def __init__(self, definition: dg.ExecutorDefinition, wrap: Callable[[dg.Executor], dg.Executor]) -> None:
        create = definition.executor_creation_fn
        if create is None:
            raise ValueError(f"the executor {definition.name} has no function that creates it")
        # As the constructor takes it, but for what its types say.
        config_schema: Any = definition.config_schema
        super().__init__(
            name=definition.name,
            config_schema=config_schema,
            requirements=definition.get_requirements,
            executor_creation_fn=lambda context: wrap(create(context)),
            description=definition.description,
        )
