//! What admission costs for each Pod and each ConfigMap that is made.
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use admission::{Attributes, Lookup, Operation, enabled, mutate, validate};
use authorization::User;
use serde_json::{Value, json};

/// Microseconds that all plugins together may take where a namespace is held to one level and warned of another.
const LIMIT_MICROS: f64 = 40.0;

struct World {
    namespace: Arc<Value>,
    account: Arc<Value>,
}

impl Lookup for World {
    fn get(&self, resource: &str, _: &str, _: &str) -> Option<Arc<Value>> {
        match resource {
            "namespaces" => Some(self.namespace.clone()),
            "serviceaccounts" => Some(self.account.clone()),
            _ => None,
        }
    }

    fn list(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }

    fn decide(&self, _: &authorization::Attributes<'_>) -> authorization::Decision {
        authorization::Decision::Allow(String::new())
    }
}

fn main() {
    let world = World {
        namespace: Arc::new(json!({"metadata": {"name": "a", "labels": {
            "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}})),
        account: Arc::new(json!({"metadata": {"name": "default", "namespace": "a"}})),
    };
    let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [
        {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}, {"name": "d", "image": "nginx"}]}});
    let config = json!({"metadata": {"name": "c"}, "data": {"k": "v"}});
    let user = User::new("u", &[]);
    let plugins = enabled(&[]).unwrap_or_default();
    let mut missed = false;
    for (resource, object) in [("pods", pod), ("configmaps", config)] {
        let attributes = Attributes {
            operation: Operation::Create,
            user: &user,
            group: "",
            resource,
            subresource: "",
            namespace: "a",
            name: "p",
            suffix: "abcde",
        };
        let rounds = 20_000;
        let mut spent = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let mut object = object.clone();
            let mut warnings = Vec::new();
            let begun = Instant::now();
            let _ = black_box(mutate(&plugins, &attributes, &mut object, None, &world));
            let _ = black_box(validate(
                &plugins,
                &attributes,
                &object,
                None,
                &world,
                &mut warnings,
            ));
            spent.push(begun.elapsed());
        }
        // The median: a round that the system interrupted says nothing about the plugins.
        spent.sort_unstable();
        let micros = spent[rounds / 2].as_secs_f64() * 1e6;
        missed |= micros > LIMIT_MICROS;
        println!(
            "{{\"bench\": \"admission\", \"case\": \"{resource}\", \"metric\": \"us_per_create\", \"value\": {micros:.2}, \
             \"unit\": \"us\"}}"
        );
    }
    if missed {
        eprintln!("admission takes more than {LIMIT_MICROS} us");
        std::process::exit(1);
    }
}
