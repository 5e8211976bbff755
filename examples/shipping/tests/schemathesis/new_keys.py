"""For schemathesis: a client that names each new request by a new key, as the API asks of it.

Schemathesis sends one key with many bodies. The service refuses that with 422 `key-reused`, as documented, and what it makes of
the body itself would stay untested.
"""

import schemathesis

KEY = "Idempotency-Key"
# Which body was sent under which key. A key that is refused as malformed names nothing.
sent = {}


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.headers and sent.get(case.headers.get(KEY), case.body) != case.body:
        case.headers[KEY] = f"request-{len(sent)}"


@schemathesis.hook
def after_call(context, case, response):
    if case.headers and response.status_code != 400:
        sent.setdefault(case.headers.get(KEY), case.body)
