"""The commands of `whalefall-capacity`, a module a group."""
