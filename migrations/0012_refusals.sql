-- Callers that the webhooks refused, for `ledgerd status`: who lacks a token, or has a wrong one. It is no evidence: it is not in
-- the tree, nobody verifies it, and the row of the caller that was refused longest ago takes in the next one.
create table ledger.refusal (
    -- The daemon uses 256 of them, so the table never grows.
    slot     bigint      primary key,
    -- 401, 403, 413 or 429.
    status   integer     not null,
    webhook  text        not null,
    -- The caller's, or its proxy's; `others` where there were too many at a time.
    address  text        not null,
    -- Since first_at.
    calls    bigint      not null,
    first_at timestamptz not null,
    last_at  timestamptz not null
);
