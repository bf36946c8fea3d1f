"""What is wrong with a parameter or a body, in the same words on a page and over the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whalefall_capacity.sentences import Sentence

NO_JSON = Sentence("must be JSON")
# By pydantic's type of the fault, with blanks that BLANKS names.
FAULTS = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "greater_than_equal": "must be at least {least}",
    "less_than_equal": "must be at most {most}",
    "greater_than": "must be more than {least}",
    "less_than": "must be less than {most}",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be text",
    "string_too_short": "must have at least {least} characters",
    "string_too_long": "must have at most {most} characters",
    "too_long": "must be given at most {most} times",
    "literal_error": "must be one of {allowed}",
    "enum": "must be one of {allowed}",
    "json_invalid": NO_JSON,
    "model_attributes_type": "must be a JSON object, sent with the header Content-Type: application/json",
}
# The blanks by pydantic's names.
BLANKS = {
    "ge": "least",
    "gt": "least",
    "le": "most",
    "lt": "most",
    "min_length": "least",
    "max_length": "most",
    "expected": "allowed",
}


def fault_of(problem: Mapping[str, Any]) -> Sentence:
    """Return what is wrong, in words that can be translated unless they are pydantic's own."""
    told = FAULTS.get(problem["type"])
    if told is None:
        # Said by a validator of ours, or by pydantic.
        reason: str = problem["msg"].removeprefix("Value error, ")
        return Sentence(reason[:1].lower() + reason[1:])
    values = {BLANKS[name]: value for name, value in problem.get("ctx", {}).items() if name in BLANKS}
    if "allowed" in values:
        values["allowed"] = values["allowed"].replace(" or ", ", ")
    return Sentence(told, **values)
