-- No UNIQUE on order_id: the naive route must be able to ship an order twice.
CREATE TABLE orders (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Which request wrote the row; NULL on the naive route, and any number of rows may be NULL.
    request    TEXT UNIQUE,
    tenant     TEXT NOT NULL,
    order_id   TEXT NOT NULL,
    vendor     TEXT NOT NULL,
    address    TEXT NOT NULL,
    -- RFC 3339 in UTC, as the list shows it: text, so that both databases give the same.
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);

CREATE INDEX orders_by_tenant ON orders (tenant, id);
