//! IPAddress and ServiceCIDR: the addresses of Services, as objects.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{immutable, named_cells};
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::net;
use crate::table::{AGE, BASE, NAME, NameRule, Resource, STATUS, column};
use crate::value::{self, at, list, text};

/// Addresses that are in use.
pub(crate) static IP_ADDRESSES: Resource = Resource {
    group: "networking.k8s.io",
    kind: "IPAddress",
    list_kind: "IPAddressList",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    storage_prefix: "/registry/ipaddresses",
    definition: "io.k8s.api.networking.v1.IPAddress",
    name_rule: NameRule::Address,
    columns: &[NAME, column("ParentRef", "The object whose address it is.")],
    cells: |object, _| {
        let parent = at(object, &["spec", "parentRef"]);
        let mut shown = text(parent, &["resource"]).to_owned();
        if !text(parent, &["group"]).is_empty() {
            shown = format!("{shown}.{}", text(parent, &["group"]));
        }
        for key in ["namespace", "name"] {
            if !text(parent, &[key]).is_empty() {
                shown = format!("{shown}/{}", text(parent, &[key]));
            }
        }
        vec![meta::name(object).into(), shown.into()]
    },
    validate: validate_address,
    validate_update: |new, old| {
        let mut wrong = validate_address(new);
        wrong.extend(immutable(new, old, &["spec", "parentRef"]));
        wrong
    },
    ..BASE
};

fn validate_address(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let name = meta::name(object);
    let canonical = net::parse_ip_strict(name).map(|address| address.to_string());
    if canonical.as_deref() != Some(name) {
        let why = if canonical.is_some() {
            "must be in canonical form"
        } else {
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        };
        wrong.push(FieldError::invalid_text("metadata.name", name, why));
    }
    let parent = at(object, &["spec", "parentRef"]);
    if !parent.is_object() {
        wrong.push(FieldError::required("spec.parentRef", ""));
        return wrong;
    }
    for (key, rule) in [
        ("group", names::subdomain as fn(&str) -> Vec<String>),
        ("resource", names::path_segment),
        ("name", names::path_segment),
        ("namespace", names::path_segment),
    ] {
        let field = format!("spec.parentRef.{key}");
        let given = text(parent, &[key]);
        if given.is_empty() {
            if matches!(key, "resource" | "name") {
                wrong.push(FieldError::required(field, ""));
            }
            continue;
        }
        for why in rule(given) {
            wrong.push(FieldError::invalid_text(field.clone(), given, why));
        }
    }
    wrong
}

/// Ranges that Services get their addresses from.
pub(crate) static SERVICE_CIDRS: Resource = Resource {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    list_kind: "ServiceCIDRList",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[STATUS],
    storage_prefix: "/registry/servicecidrs",
    definition: "io.k8s.api.networking.v1.ServiceCIDR",
    name_rule: NameRule::Label,
    columns: &[
        NAME,
        column("CIDRs", "Its ranges, one of each family."),
        AGE,
    ],
    cells: |object, now| {
        let ranges: Vec<&str> = list(object, &["spec", "cidrs"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        named_cells(object, [ranges.join(",").into()], now)
    },
    prepare_create: |object| value::set(object, "status", json!({})),
    validate: validate_range,
    validate_update: |new, old| {
        let (after, before) = (list(new, &["spec", "cidrs"]), list(old, &["spec", "cidrs"]));
        // The one change: a second family may come.
        if before.len() == 1 && after.len() == 2 && after.first() == before.first() {
            return validate_range(new);
        }
        immutable(new, old, &["spec", "cidrs"])
            .into_iter()
            .collect()
    },
    ..BASE
};

fn validate_range(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let ranges = list(object, &["spec", "cidrs"]);
    if ranges.is_empty() {
        return vec![FieldError::required(
            "spec.cidrs",
            "at least one CIDR required",
        )];
    }
    if ranges.len() > 2 {
        wrong.push(FieldError::invalid(
            "spec",
            at(object, &["spec"]),
            "may only hold up to 2 values",
        ));
        return wrong;
    }
    let mut families = Vec::new();
    for (i, range) in ranges.iter().enumerate() {
        let field = format!("spec.cidrs[{i}]");
        let range = range.as_str().unwrap_or("");
        let Some((address, prefix)) = net::parse_cidr_strict(range) else {
            wrong.push(FieldError::invalid_text(
                field,
                range,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
            continue;
        };
        families.push(address.is_ipv4());
        if network(address, prefix) != address {
            wrong.push(FieldError::invalid_text(
                field,
                range,
                format!(
                    "must not have bits set beyond the prefix length (should be \"{}/{prefix}\")",
                    network(address, prefix)
                ),
            ));
        }
    }
    if let [one, other] = families.as_slice()
        && one == other
    {
        wrong.push(FieldError::invalid(
            "spec",
            at(object, &["spec"]),
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
    wrong
}

/// The first address of the range.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_canonical() {
        let address = |name: &str| json!({"metadata": {"name": name}, "spec": {"parentRef": {"resource": "services", "name": "a", "namespace": "b"}}});
        for (name, fit) in [
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("2001:db8:0::1", false),
            ("web", false),
        ] {
            assert_eq!(validate_address(&address(name)).is_empty(), fit, "{name}");
        }
        assert_eq!(
            (IP_ADDRESSES.cells)(&address("10.0.0.1"), time::OffsetDateTime::UNIX_EPOCH)[1],
            "services/b/a"
        );
    }

    #[test]
    fn ranges() {
        for (ranges, fit) in [
            (json!(["10.0.0.0/8"]), true),
            (json!(["10.0.0.0/8", "fd00::/112"]), true),
            (json!(["10.0.0.0/8", "11.0.0.0/8"]), false),
            (json!(["10.0.0.1/8"]), false),
            (json!([]), false),
            (json!(["0.0.0.0/0"]), true),
        ] {
            let range = json!({"spec": {"cidrs": ranges}});
            assert_eq!(validate_range(&range).is_empty(), fit, "{range}");
        }
    }
}
