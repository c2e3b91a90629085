"""Reports on the orders. Each flow calls `clean_orders`, which Prefect shows as a run within the run."""

from datetime import date

from orders import Order, clean_orders
from prefect import flow, task
from tabulate import tabulate
from toolz import groupby, topk


@task
def totals(orders: list[Order], by: str) -> dict[str, int]:
    return {name: sum(order["cents"] for order in of_name) for name, of_name in sorted(groupby(by, orders).items())}


@flow(log_prints=True)
def sales_report(last_day: date | None = None, days: int = 1, by: str = "region") -> dict[str, int]:
    """Print what was sold in some days, by region or by product."""
    sums = totals(clean_orders(last_day, days), by)
    print(tabulate([(name, cents / 100) for name, cents in sums.items()], headers=[by, "EUR"], floatfmt=".2f"))
    return sums


@flow(name="best-sellers", log_prints=True)
def best(last_day: date | None = None, limit: int = 3) -> list[str]:
    """Print the products that sold best on a day."""
    sums = totals(clean_orders(last_day), "product")
    ranking = [name for _, name in topk(limit, ((cents, name) for name, cents in sums.items()))]
    print("best sellers:", ", ".join(ranking))
    return ranking
