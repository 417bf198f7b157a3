//! Each provider's own resources: small, sensible, always the same.

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{Asked, Payload};
use crate::sandbox::{
    provider::Provider,
    queue::Progress,
    reply::{Reply, bare, json, with},
};

/// The resource at this path, if there is one. An object carries the echo as `_echo`.
pub(super) fn answer(asked: &Asked<'_>, payload: &Payload, echo: &Value) -> Option<Reply> {
    let segments = asked.segments();
    let at = (asked.call.head.method.as_str(), segments.as_slice());
    match asked.provider {
        Provider::Ipxo => ipxo(at, payload, echo),
        Provider::DigitalRealty | Provider::IxApi => ix_api(at, echo),
        Provider::Pax8 => pax8(at, echo),
        Provider::MythicBeasts => mythic(asked, at, echo),
        Provider::Described(_) => None,
    }
}

type At<'a> = (&'a str, &'a [&'a str]);

#[expect(clippy::unnecessary_wraps, reason = "an arm of a match that may also find nothing")]
fn ok(mut value: Value, echo: &Value) -> Option<Reply> {
    if value.is_object() {
        value["_echo"] = echo.clone();
    }
    Some(json(StatusCode::OK, &value))
}

fn ipxo(at: At<'_>, payload: &Payload, echo: &Value) -> Option<Reply> {
    let invoices = || {
        json!({
            "data": [
                { "uuid": "b4c1f0de-0000-4000-8000-000000000001", "number": "INV-2024-0001", "status": "paid",
                  "currency": "USD", "total": 1280.50, "issued_at": "2024-11-01", "due_at": "2024-11-15" },
                { "uuid": "b4c1f0de-0000-4000-8000-000000000002", "number": "INV-2024-0002", "status": "open",
                  "currency": "USD", "total": 640.25, "issued_at": "2024-12-01", "due_at": "2024-12-15" },
            ],
            "meta": { "current_page": 1, "last_page": 1, "per_page": 15, "total": 2 },
        })
    };
    match at {
        ("GET", ["billing", "v1"]) => {
            let acme = json!({ "uuid": "5f1a77aa-0000-4000-8000-00000000acee", "name": "Acme Networks" });
            ok(json!({ "data": [acme] }), echo)
        }
        ("GET", ["billing", "v1", _, "invoices"]) | ("POST", ["billing", "v1", _, "invoices", "search"]) => {
            ok(invoices(), echo)
        }
        ("GET", ["ecommerce", "public", _, "cart"]) => ok(json!({ "items": [], "total": 0, "credits": 0 }), echo),
        ("POST", ["ecommerce", "public", _, "cart"]) => Some(bare(StatusCode::NO_CONTENT)),
        ("DELETE", ["ecommerce", "public", _, "cart", _, "credits"]) => {
            let amount =
                payload.text().and_then(|t| serde_json::from_str::<Value>(t).ok()).map(|v| v["amount"].clone());
            ok(json!({ "removed": amount, "credits": 0 }), echo)
        }
        ("GET", ["credits", "public", _, "balances"]) => {
            ok(json!({ "data": [{ "currency": "USD", "balance": 42.0 }] }), echo)
        }
        ("POST", ["nethub-data", _, "prefixes", "search"]) => {
            let prefix = json!({ "prefix": "192.0.2.0/24", "rir": "RIPE", "announced": true, "asn": 64500 });
            ok(json!({ "data": [prefix], "meta": { "offset": 0, "limit": 10, "total": 1 } }), echo)
        }
        _ => None,
    }
}

/// IX-API's lists are bare arrays.
fn ix_api((method, segments): At<'_>, echo: &Value) -> Option<Reply> {
    let ["ixapi" | "api", "v2", below @ ..] = segments else { return None };
    let connection = || {
        json!({
            "id": "conn-1", "name": "AMS9 rack 12", "state": "production", "mode": "lag_lacp", "lacp_timeout": "slow",
            "capacity_allocated": 1000, "managing_account": "acc-1", "consuming_account": "acc-1",
            "ports": ["port-1"], "pop": "pop-ams9",
        })
    };
    match (method, below) {
        ("GET", ["health"]) => Some(json(
            StatusCode::OK,
            &json!({ "status": "pass", "version": "2", "serviceId": "ix-api", "description": "sandbox" }),
        )),
        ("GET", ["implementation"]) => ok(
            json!({ "schema_version": "2.4.2", "service_version": "sandbox", "supported_network_service_types": [] }),
            echo,
        ),
        ("GET", ["connections"]) => ok(json!([connection()]), echo),
        ("GET", ["connections", "conn-1"]) => ok(connection(), echo),
        ("GET", ["connections", _]) => Some(super::error(
            Provider::IxApi,
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such connection; try conn-1.",
        )),
        ("GET", ["accounts"]) => {
            ok(json!([{ "id": "acc-1", "name": "Test Company Parent", "state": "production" }]), echo)
        }
        ("GET", ["product-offerings"]) => ok(
            json!([{ "id": "po-1", "name": "Cloud Access Port 1G", "type": "connection", "physical_port_speed": 1000 }]),
            echo,
        ),
        _ => None,
    }
}

fn pax8(at: At<'_>, echo: &Value) -> Option<Reply> {
    let page = |content: Value| {
        let total = content.as_array().map_or(0, Vec::len);
        json!({ "content": content, "page": { "size": 10, "totalElements": total, "totalPages": 1, "number": 0 } })
    };
    match at {
        ("GET", ["v1", "companies"]) => ok(
            page(json!([
                { "id": "c0ffee00-0000-4000-8000-000000000001", "name": "Northwind Traders", "status": "Active" },
                { "id": "c0ffee00-0000-4000-8000-000000000002", "name": "Contoso", "status": "Active" },
            ])),
            echo,
        ),
        ("GET", ["v1", "invoices"]) => {
            ok(page(json!([{ "id": "1f00-1", "invoiceDate": "2024-12-01", "total": 99.9, "status": "Unpaid" }])), echo)
        }
        ("GET", ["v2", "quotes"]) => {
            ok(page(json!([{ "id": "q-1", "referenceCode": "Q-0001", "status": "draft" }])), echo)
        }
        ("GET", ["v2", "provision-requests"]) => {
            ok(page(json!([{ "id": "pr-1", "status": "PENDING", "type": "CREATE" }])), echo)
        }
        ("GET", ["v2", "usage", "lines"]) => ok(page(json!([{ "id": "u-1", "quantity": 3 }])), echo),
        ("GET", ["api", "v2", "webhooks"]) => ok(page(json!([])), echo),
        ("DELETE", ["api", "v2", "webhooks", _]) => Some(bare(StatusCode::NO_CONTENT)),
        ("POST", ["api", "v2", "webhooks", _, "logs", _, "retry"]) => Some(bare(StatusCode::ACCEPTED)),
        _ => None,
    }
}

fn mythic(asked: &Asked<'_>, at: At<'_>, echo: &Value) -> Option<Reply> {
    let server = |id: &str| json!({ "identifier": id, "product": "VPSX4", "status": "running", "zone": "cam" });
    match at {
        ("GET", ["dns", "v2", "zones"]) => ok(json!({ "zones": ["example.com", "example.org"] }), echo),
        ("GET", ["dns", "v2", "zones", zone, "records", ..]) => {
            let zone_record = json!({ "host": "www", "type": "A", "ttl": 300, "data": "192.0.2.80" });
            ok(json!({ "records": [zone_record], "zone": zone }), echo)
        }
        ("POST" | "PUT", ["dns", "v2", "zones", ..]) => {
            ok(json!({ "records_added": 1, "message": "1 records added" }), echo)
        }
        ("DELETE", ["dns", "v2", "zones", ..]) => {
            ok(json!({ "records_removed": 1, "message": "1 records deleted" }), echo)
        }
        ("GET", ["beta", "vps", "servers"]) => ok(json!({ "web1": server("web1") }), echo),
        ("GET", ["beta", "vps" | "pi", "servers", id]) => ok(server(id), echo),
        ("DELETE", ["beta", "vps" | "pi", "servers", _]) => Some(bare(StatusCode::NO_CONTENT)),
        ("POST", ["beta", kind @ ("vps" | "pi"), "servers", id]) => {
            let number = asked.shared.queue.add(format!("/mythic/beta/{kind}/servers/{id}"));
            let location = asked.url(&format!("/mythic/queue/{kind}/{number}"));
            Some(with(json(StatusCode::ACCEPTED, &json!({ "_echo": echo })), header::LOCATION, &location))
        }
        ("GET", ["queue", _, number]) => queue(asked, number, echo),
        ("GET", ["beta", "pi", "models"]) => ok(json!({ "models": [{ "model": 4, "memory": 8192 }] }), echo),
        _ => None,
    }
}

/// Pending, then 303 to what was made.
fn queue(asked: &Asked<'_>, number: &str, echo: &Value) -> Option<Reply> {
    match number.parse().map_or(Progress::Unknown, |n| asked.shared.queue.poll(n)) {
        Progress::Pending => ok(json!({ "status": "pending" }), echo),
        Progress::Done(path) => Some(with(bare(StatusCode::SEE_OTHER), header::LOCATION, &asked.url(&path))),
        Progress::Unknown => {
            Some(super::error(asked.provider, StatusCode::NOT_FOUND, "not-found", "There is no such task"))
        }
    }
}
