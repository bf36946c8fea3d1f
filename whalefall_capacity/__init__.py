"""Capacity pipeline for a fleet of MySQL, MariaDB and PostgreSQL servers, built on Dagster."""
