"""Orders: read those of a day and clean them. They are made up, and the same ones for the same day."""

from datetime import date, timedelta
from typing import TypedDict

from prefect import flow, task
from toolz import unique

REGIONS = ("north", "south", "west")
PRODUCTS = ("bread", "cheese", "olives", "wine")


class Order(TypedDict):
    number: int
    region: str
    product: str
    cents: int


@task
def read_orders(day: date) -> list[Order]:
    seed = day.toordinal()
    return [
        {
            "number": seed * 100 + position,
            "region": REGIONS[position // 4 % len(REGIONS)],
            "product": PRODUCTS[(seed + position) % len(PRODUCTS)],
            "cents": 250 + (seed * 37 + position * 91) % 1900,
        }
        for position in (*range(24), 5, 7)  # two come twice, as they do
    ]


@task
def without_duplicates(orders: list[Order]) -> list[Order]:
    return list(unique(orders, key=lambda order: order["number"]))


@flow(log_prints=True)
def clean_orders(last_day: date | None = None, days: int = 1) -> list[Order]:
    """Read the orders of some days and drop those that came twice; runs by itself too."""
    last_day = last_day or date.today()
    orders = [order for ago in range(days) for order in read_orders(last_day - timedelta(days=ago))]
    cleaned = without_duplicates(orders)
    print(f"{len(cleaned)} of {len(orders)} orders are left")
    return cleaned
