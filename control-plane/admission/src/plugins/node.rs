//! TaintNodesByCondition: a new Node takes no Pods until somebody found it ready.

use api::value::{list, object_mut, set, text};
use serde_json::json;

use crate::{Operation, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(crate) const TAINT_NODES_BY_CONDITION: Plugin = Plugin {
    name: "TaintNodesByCondition",
    handles: |attributes| attributes.is("", "nodes") && attributes.operation == Operation::Create,
    mutate: Some(|_, node, _, _| {
        let Some(spec) = object_mut(node, "spec") else {
            return Ok(());
        };
        let mut taints = list(spec, &["taints"]).to_vec();
        let known = taints.iter().any(|taint| {
            text(taint, &["key"]) == NOT_READY && text(taint, &["effect"]) == "NoSchedule"
        });
        if !known {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            set(spec, "taints", taints);
        }
        Ok(())
    }),
    validate: None,
};
