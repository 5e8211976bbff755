use axum::extract::FromRequestParts;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order<'a>(name: &'a str) -> String
where
    &'a str: FromRequestParts<()>,
{
    name.to_owned()
}

fn main() {}
