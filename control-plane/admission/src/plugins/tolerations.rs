//! DefaultTolerationSeconds: a Pod stays for five minutes on a node that is not ready or cannot be reached.

use api::value::{list, object_mut, set, text};
use serde_json::{Value, json};

use super::writes;
use crate::Plugin;

const SECS: i64 = 300;

pub(crate) const DEFAULT_TOLERATION_SECONDS: Plugin = Plugin {
    name: "DefaultTolerationSeconds",
    handles: |attributes| attributes.is("", "pods") && writes(attributes.operation),
    mutate: Some(|_, pod, _, _| {
        let Some(spec) = object_mut(pod, "spec") else {
            return Ok(());
        };
        let mut all = list(spec, &["tolerations"]).to_vec();
        let before = all.len();
        for key in [
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        ] {
            if !all[..before]
                .iter()
                .any(|toleration| tolerates(toleration, key))
            {
                all.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECS,
                }));
            }
        }
        if all.len() > before {
            set(spec, "tolerations", all);
        }
        Ok(())
    }),
    validate: None,
};

fn tolerates(toleration: &Value, wanted: &str) -> bool {
    let (key, effect) = (text(toleration, &["key"]), text(toleration, &["effect"]));
    (key == wanted || key.is_empty()) && matches!(effect, "" | "NoExecute")
}
