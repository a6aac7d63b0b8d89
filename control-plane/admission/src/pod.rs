//! What plugins ask of a Pod.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::value::{entries, list, text};
use serde_json::Value;

/// The containers of a pod's spec, by the name of their list.
pub(crate) const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The service account of a Pod; `default` where it names none.
pub fn account_name(pod: &Value) -> &str {
    match text(pod, &["spec", "serviceAccountName"]) {
        "" => match text(pod, &["spec", "serviceAccount"]) {
            "" => "default",
            old => old,
        },
        name => name,
    }
}

/// Whether the Pod only shows what a node runs from a file of its own.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror")
        .is_some()
}

/// Every container of a pod's spec.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    CONTAINERS.iter().flat_map(|key| list(spec, &[key]))
}

/// Amounts by name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts at a path; what is no quantity is left out.
pub(crate) fn amounts(value: &Value, path: &[&str]) -> Amounts {
    entries(value, path)
        .filter_map(|(name, amount)| {
            let amount = match amount {
                Value::String(text) => Quantity::parse(text).ok()?,
                other => Quantity::parse(&other.to_string()).ok()?,
            };
            Some((name.clone(), amount))
        })
        .collect()
}

/// What a Pod asks for of `which` (`requests` or `limits`): the sum of its containers and of the init containers that
/// keep running, or the most that is needed while it starts, whichever is more; overhead on top.
pub(crate) fn total(pod: &Value, which: &str) -> Amounts {
    let spec = &pod["spec"];
    let of = |container: &Value| amounts(container, &["resources", which]);
    let mut sum = Amounts::new();
    for container in list(spec, &["containers"]) {
        add(&mut sum, &of(container));
    }
    let (mut beside, mut starting) = (Amounts::new(), Amounts::new());
    for container in list(spec, &["initContainers"]) {
        if text(container, &["restartPolicy"]) == "Always" {
            add(&mut sum, &of(container));
            add(&mut beside, &of(container));
            raise(&mut starting, &beside);
        } else {
            let mut now = of(container);
            add(&mut now, &beside);
            raise(&mut starting, &now);
        }
    }
    raise(&mut sum, &starting);
    // The Pod's own figures stand for those of its containers.
    for (name, amount) in amounts(spec, &["resources", which]) {
        sum.insert(name, amount);
    }
    let overhead = amounts(spec, &["overhead"]);
    for (name, amount) in &overhead {
        // A limit that is not there is not raised.
        if which == "requests" || sum.contains_key(name) {
            let now = sum.get(name).copied().unwrap_or(Quantity::ZERO);
            sum.insert(name.clone(), now.plus(amount));
        }
    }
    sum
}

/// Adds amounts to amounts.
pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |now| now.plus(amount));
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, others: &Amounts) {
    for (name, amount) in others {
        if to.get(name).is_none_or(|now| now < amount) {
            to.insert(name.clone(), *amount);
        }
    }
}
