"""What can't be done, as an exception: an id of the catalogues with its facts, so that each hears it in their own language."""

from typing import Any

from gateway.words.catalogue import text


class Refusal(ValueError):
    """Nothing was done. The sentence says what is wrong and what to do; commands and logs have it in English, as `str`."""

    def __init__(self, id_: str, /, **facts: Any) -> None:
        """`id_`: below `why.`, as in `why.no_node`; `facts`: those of its sentence."""
        super().__init__(id_)
        self.id, self.facts = id_, facts

    def __str__(self) -> str:
        """In English."""
        return text("en", self.id, **self.facts)
