//! Field managers of the objects that pass through: which writer a request is, and how its resource merges.

use api::status::Status;
use api::table::Resource;
use api::{meta, schema};
use field_manager::{Type, Writer};
use http::header::USER_AGENT;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::handlers::Call;

/// Records in `new` which fields the call sets or takes; `live` is what stands there, if anything.
pub(crate) fn track(call: &Call, live: Option<&Value>, new: &mut Value) {
    as_writer(call, |of, writer| {
        field_manager::track(of, live, new, writer);
    });
}

/// What becomes of `live` when the configuration is applied to it; of nothing, where `live` is `None`.
pub(crate) fn apply(
    call: &Call,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, Status> {
    as_writer(call, |of, writer| {
        let nothing;
        let live = if let Some(live) = live {
            live
        } else {
            nothing =
                json!({"apiVersion": writer.api_version, "kind": call.row.kind, "metadata": {}});
            &nothing
        };
        field_manager::apply(of, live, config, writer, force).map_err(|refusal| refusal.status())
    })
}

/// `config` laid over `live` as by server-side apply, without a record of it.
pub(crate) fn overlay(row: &Resource, live: &Value, config: &Value) -> Result<Value, String> {
    with_type(row, |of| field_manager::overlay(of, live, config))
}

fn as_writer<T>(call: &Call, carry_out: impl FnOnce(Type<'_>, &Writer<'_>) -> T) -> T {
    let agent = call.headers.get(USER_AGENT).and_then(|v| v.to_str().ok());
    let manager =
        field_manager::manager_name(call.query.text("fieldManager"), agent.unwrap_or_default());
    let now = meta::timestamp(OffsetDateTime::now_utc());
    let subresource = call.subresource.map_or("", |sub| sub.name);
    let writer = Writer {
        manager: &manager,
        subresource,
        api_version: &call.row.api_version(),
        now: &now,
        without_status: call.row.has_status() && subresource != "status",
    };
    with_type(call.row, |of| carry_out(of, &writer))
}

fn with_type<T>(row: &Resource, carry_out: impl FnOnce(Type<'_>) -> T) -> T {
    if let Some(rules) = row.rules() {
        return carry_out(Type::custom(&rules.schema()));
    }
    carry_out(schema::of(row).map_or(Type::open(), Type::built_in))
}
