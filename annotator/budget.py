"""Money and tokens: prices, what a run may cost, and what it would cost."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from annotator.errors import BadInput
from annotator.judges import Usage
from annotator.resources import resource

_VERSION = re.compile(r"(?:[-@](?:\d[\d.]*|latest))*")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens of input, of input from the provider's prompt cache, and of output."""

    input: float
    cached: float
    output: float

    def cost(self, usage: Usage) -> float:
        """What some usage costs, in US dollars."""
        fresh = usage.input_tokens - usage.cached_input_tokens
        paid = fresh * self.input + usage.cached_input_tokens * self.cached + usage.output_tokens * self.output
        return paid / 1e6


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may spend; None = no limit. Answers that come from the cache are free.

    max_cost_usd needs a known price. max_tokens counts input and output. max_records counts records that are asked for.
    """

    max_cost_usd: float | None = None
    max_tokens: int | None = None
    max_records: int | None = None

    def exceeded(self, usage: Usage, reserved: Usage, records: int, price: Price | None) -> str | None:
        """Which limit the next request would break, in words; None if it may go.

        Args:
            usage: spent so far. reserved: what the requests in flight and the next one are expected to take.
            records: asked for so far.
        """
        if self.max_records is not None and records >= self.max_records:
            return f"--max-records {self.max_records}"
        if self.max_tokens is not None:
            spent = usage.input_tokens + usage.output_tokens + reserved.input_tokens + reserved.output_tokens
            if spent > self.max_tokens:
                return f"--max-tokens {self.max_tokens}"
        cost = 0.0 if price is None else price.cost(usage) + price.cost(reserved)
        if self.max_cost_usd is not None and cost > self.max_cost_usd:
            return f"--max-cost {self.max_cost_usd:g}"
        return None


def price_of(model: str, path: str | Path | None = None) -> Price | None:
    """The price of a model, by its name in the table (default: schemas/prices.toml); None if it is not there.

    What follows the longest name that fits may be a version or a date ("gpt-4o-2024-11-20", "-latest", "@20250929"),
    but no word: gpt-5-pro is not gpt-5.

    "MODEL+MODEL" is a panel whose judges get equal numbers of tokens: the mean of their prices, if all are known.

    Raises:
        BadInput: if the table cannot be read.
    """
    table = _load(Path(path) if path is not None else resource("schemas", "prices.toml"))
    prices = []
    for name in model.split("+"):
        bare = name.rsplit("/", 1)[-1]
        fitting = [known for known in table if bare.startswith(known) and _VERSION.fullmatch(bare, len(known))]
        if not fitting:
            return None
        prices.append(table[max(fitting, key=len)])
    count = len(prices)
    return Price(*(sum(getattr(price, part) for price in prices) / count for part in ("input", "cached", "output")))


@lru_cache(maxsize=4)
def _load(path: Path) -> dict[str, Price]:
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        return {
            name: Price(float(row["input"]), float(row.get("cached", row["input"])), float(row["output"]))
            for name, row in raw["models"].items()
        }
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"the price table cannot be read ({error})", where=str(path)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = 'Write "MODEL" = { input = 1.0, cached = 0.1, output = 2.0 } under [models].'
        raise BadInput(f"a price is incomplete ({error})", where=str(path), remedy=remedy) from None
