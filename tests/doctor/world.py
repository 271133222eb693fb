"""Rows of a small shop's click log, of whose columns each can be spoilt; and a network that has learned them."""

import numpy as np

SCHEMA = """label: click
dense: [{name: when, as: timestamp, format: seconds, since: 2023-11-14}, price, age, visits]
categorical: [site, city, device, item, user, {name: tags, list: "|", max_values: 4, pool: mean}]
header: true
separator: ","
"""
NAMES = ["click", "when", "price", "age", "visits", "site", "city", "device", "item", "user", "tags"]
CITIES = ["北京", "上海", "广州市", "深圳", "重庆市", "Łódź", "Zürich"]
DEVICES = ["phone", "tablet", "desktop"]
FIRST = 1_700_000_000
STEP_S = 60


def shop_rows(rows, seed=1, first=FIRST, drift=0.0):
    """Rows as lists of cells, in the order of time; drift moves their shares a little."""
    rng = np.random.default_rng(seed)
    rank = np.minimum(rng.geometric(0.12 - drift / 10, rows), 40)
    city = np.minimum(rng.geometric(0.35, rows) - 1, 6)
    device = rng.choice(3, rows, p=[0.6 - drift, 0.1, 0.3 + drift])
    item = np.minimum(rng.geometric(0.04, rows), 200)
    user = np.minimum(rng.geometric(0.01, rows), 900)
    price = np.exp(rng.normal(3 + drift, 1, rows))
    age, visits = rng.integers(18, 80, rows), rng.geometric(0.2, rows) - 1
    effect = np.random.default_rng(9).normal(0, 1.6, 41)
    logits = effect[rank] + 1.2 * (city == 0) - 1.3 * (device == 2) - 0.9 * (np.log(price) - 3) - 0.8
    clicks = rng.random(rows) < 1 / (1 + np.exp(-logits))
    tags = [rng.integers(0, 12, count) for count in rng.integers(0, 4, rows)]
    return [
        [str(int(clicks[row])), str(first + STEP_S * row), f"{price[row]:.2f}", str(age[row]) * (rng.random() > 0.1),
         str(visits[row]), f"{(int(rank[row]) * 0x9E3779B1) % 2**32:08x}", CITIES[city[row]], DEVICES[device[row]],
         f"{int(item[row]):05d}", f"u{int(user[row])}@mail",
         "|".join(f"t{tag}" for tag in tags[row])]
        for row in range(rows)
    ]  # fmt: skip


def written(path, rows, names=tuple(NAMES), separator=",", encoding="utf-8"):
    """A file of a line of names, unless there are none, and rows."""
    lines = [separator.join(cells) for cells in ([names] if names else []) + list(rows)]
    path.write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    return path
