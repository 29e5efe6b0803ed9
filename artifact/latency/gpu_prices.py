"""What a GPU costs an hour: a list that ships (`gpu_prices.yaml`, each price with source and date), and a user's own.

    prices = load_prices(options.prices)         # `--prices FILE`: its prices win, the others stay
    gpu_hour_usd(card, prices) * card.gpus       # USD for an hour of one replica

A file of one's own needs no more than `H100-80GB SXM: 2.5`.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from artifact.config import ConfigError, Once, Strict, number_hint, parse, read_mapping
from niyama.latency import ModelCard, load_card, model_names
from niyama.names import did_you_mean

SHIPPED = Path(__file__).with_name("gpu_prices.yaml")
MOST_USD = 10_000.0  # an hour of one GPU
USD = Annotated[float, Field(gt=0, le=MOST_USD, allow_inf_nan=False)]


class _Entry(Strict):
    """One GPU of a file. also: other names of it; source and date: who asks that price, and when."""

    usd_per_gpu_hour: USD
    also: Annotated[tuple[str, ...], Field(strict=False), Once] = ()
    source: str = Field("", description="who asks that price")
    date: datetime.date | None = None


@dataclass(frozen=True)
class Price:
    """USD for an hour of one GPU; source: who asks that, and when, to be said wherever the price is used."""

    usd_per_gpu_hour: float
    source: str


#: GPU -> its price.
Prices = Mapping[str, Price]


def load_prices(own: Path | None = None) -> Prices:
    """The prices that ship, and before them those of the file `own`. ConfigError: what is wrong in it."""
    shipped = {gpu: _entry(SHIPPED, gpu, value) for gpu, value in read_mapping(SHIPPED).items()}
    prices = {name: _price(entry, "") for gpu, entry in shipped.items() for name in (gpu, *entry.also)}
    if own is None:
        return prices
    for gpu, value in read_mapping(own).items():
        entry, same = _entry(own, gpu, value), {gpu}
        known = {*prices, *(load_card(name).gpu for name in model_names())}
        near = next((name for name in sorted(known) if name.startswith(gpu)), gpu)
        if near not in (gpu, *entry.also) and gpu not in known:  # the price that ships would be taken, without a word
            hint = f"did you mean {near!r}?"
            raise ConfigError(f"{own}: {gpu!r} is the GPU of no card ({hint}); write its name as `artifact cards` does")
        for name, other in shipped.items():
            same |= {name, *other.also} if gpu in (name, *other.also) else set()
        prices |= dict.fromkeys((*same, *entry.also), _price(entry, str(own)))
    return prices


def _entry(path: Path, gpu: Any, value: Any) -> _Entry:
    """One entry of a file, which may be a number alone."""
    if not isinstance(gpu, str):
        raise ConfigError(f"{path}: {gpu!r} is no name of a GPU; write `NAME: USD`")
    if isinstance(value, str):
        raise ConfigError(f"{path}: {gpu} is {value!r}, not a number{number_hint(value)}; write `{gpu}: 2.5`, in USD")
    fields = {"usd_per_gpu_hour": value} if type(value) in (int, float) else value
    if isinstance(fields, Mapping) and type(usd := fields.get("usd_per_gpu_hour")) is int:
        fields = {**fields, "usd_per_gpu_hour": float(usd) if abs(usd) < 10**15 else math.inf}  # refused below
    found: _Entry = parse(_Entry, fields, f"{path}: {gpu}")
    return found


def _price(entry: _Entry, file: str) -> Price:
    said = ", ".join(str(part) for part in (entry.source, entry.date) if part)
    return Price(entry.usd_per_gpu_hour, said or file)


def price_of(card: ModelCard, prices: Prices) -> Price:
    """The price of the card's GPU, with its source. ConfigError when the list has none."""
    if card.gpu not in prices:
        near = did_you_mean(card.gpu, prices, "? ")
        ways = f"give --gpu-hour USD, or --prices FILE with a line `{card.gpu}: USD`"
        raise ConfigError(f"the GPU of {card.name} is {card.gpu!r}, which has no price; {near}{ways}")
    return prices[card.gpu]


def gpu_hour_usd(card: ModelCard, prices: Prices) -> float:
    """USD for an hour of one GPU of the card's; a replica has `card.gpus` of them. ConfigError without a price."""
    return price_of(card, prices).usd_per_gpu_hour
