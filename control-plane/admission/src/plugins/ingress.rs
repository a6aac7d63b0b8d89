//! DefaultIngressClass: an Ingress that names no class is of the default one.

use api::value::{at, object_mut, set};

use super::default_class;
use crate::{Operation, Plugin};

const DEFAULT: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];
/// Where Ingresses named their class before they had a field for it.
const OLD: &str = "kubernetes.io/ingress.class";

pub(crate) const DEFAULT_INGRESS_CLASS: Plugin = Plugin {
    name: "DefaultIngressClass",
    handles: |attributes| {
        attributes.is("networking.k8s.io", "ingresses") && attributes.operation == Operation::Create
    },
    mutate: Some(|_, ingress, _, lookup| {
        let named = at(ingress, &["metadata", "annotations", OLD]).is_string()
            || at(ingress, &["spec", "ingressClassName"]).is_string();
        if !named
            && let Some(class) = default_class(lookup, "ingressclasses", DEFAULT)
            && let Some(spec) = object_mut(ingress, "spec")
        {
            set(spec, "ingressClassName", api::meta::name(&class));
        }
        Ok(())
    }),
    validate: None,
};
