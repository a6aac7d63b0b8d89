//! Roles and bindings, indexed by whom they are for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::value::{list, text};
use serde_json::Value;

use crate::rule::{Rule, rules_of};
use crate::{Attributes, Decision, Target, User, user};

/// A role by name. An empty namespace means a ClusterRole.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoleRef {
    /// Empty for a ClusterRole.
    pub namespace: String,
    /// Of the role.
    pub name: String,
}

impl RoleRef {
    /// What a binding in `namespace` (empty: a ClusterRoleBinding) refers to.
    pub fn of_binding(binding: &Value, namespace: &str) -> Self {
        let cluster = text(binding, &["roleRef", "kind"]) != "Role";
        RoleRef {
            namespace: if cluster { "" } else { namespace }.to_owned(),
            name: text(binding, &["roleRef", "name"]).to_owned(),
        }
    }

    fn kind(&self) -> &'static str {
        if self.namespace.is_empty() {
            "ClusterRole"
        } else {
            "Role"
        }
    }

    /// That there is no such role, in Kubernetes' words.
    fn missing(&self) -> String {
        let kind = self.kind().to_lowercase();
        format!("{kind}.rbac.authorization.k8s.io {:?} not found", self.name)
    }
}

/// Whom a binding is for, as authentication names them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Holder {
    User(String),
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
pub struct Binding {
    /// Empty for a ClusterRoleBinding.
    pub namespace: String,
    /// Of the binding.
    pub name: String,
    /// What it grants.
    pub role: RoleRef,
    /// To whom, and how the reason of a decision names them.
    holders: Vec<(Holder, String)>,
}

impl Binding {
    /// Reads a binding; `namespace` is empty for a ClusterRoleBinding.
    pub fn read(object: &Value) -> Self {
        let namespace = api::meta::namespace(object).to_owned();
        let holders = list(object, &["subjects"])
            .iter()
            .filter_map(|subject| holder(subject, &namespace))
            .collect();
        Binding {
            role: RoleRef::of_binding(object, &namespace),
            name: api::meta::name(object).to_owned(),
            namespace,
            holders,
        }
    }

    fn reason(&self, shown: &str) -> String {
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.namespace))
        };
        format!(
            "RBAC: allowed by {kind} {name:?} of {} {:?} to {shown}",
            self.role.kind(),
            self.role.name
        )
    }
}

fn holder(subject: &Value, namespace: &str) -> Option<(Holder, String)> {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => Some((Holder::User(name.into()), format!("User {name:?}"))),
        "Group" => Some((Holder::Group(name.into()), format!("Group {name:?}"))),
        "ServiceAccount" => {
            let own = text(subject, &["namespace"]);
            let namespace = if own.is_empty() { namespace } else { own };
            if namespace.is_empty() {
                return None;
            }
            let shown = format!("ServiceAccount {:?}", format!("{name}/{namespace}"));
            Some((
                Holder::User(User::service_account(namespace, name).name),
                shown,
            ))
        }
        _ => None,
    }
}

/// The bindings of one scope by holder, each in order of name, with how the holder is shown.
type Held = HashMap<String, BTreeMap<String, (Arc<Binding>, Arc<str>)>>;

#[derive(Default, Debug)]
struct Scope {
    users: Held,
    groups: Held,
    bindings: HashMap<String, Arc<Binding>>,
}

impl Scope {
    fn held(&mut self, holder: &Holder) -> (&mut Held, String) {
        match holder {
            Holder::User(name) => (&mut self.users, name.clone()),
            Holder::Group(name) => (&mut self.groups, name.clone()),
        }
    }

    /// The bindings that hold for a user, each with how the holder is shown.
    fn for_user<'a>(
        &'a self,
        user: &'a User,
    ) -> impl Iterator<Item = &'a (Arc<Binding>, Arc<str>)> {
        let groups = user.groups.iter().filter_map(|name| self.groups.get(name));
        self.users
            .get(&user.name)
            .into_iter()
            .chain(groups)
            .flat_map(BTreeMap::values)
    }
}

/// Every role and binding of a cluster. A decision looks only at bindings of the user and of his groups.
#[derive(Default, Debug)]
pub struct Rbac {
    roles: HashMap<RoleRef, Arc<[Rule]>>,
    /// By namespace; the empty one holds ClusterRoleBindings.
    scopes: HashMap<String, Scope>,
}

impl Rbac {
    /// Puts a Role or ClusterRole in, in the place of one of the same name.
    pub fn put_role(&mut self, role: &Value) {
        let key = RoleRef {
            namespace: api::meta::namespace(role).to_owned(),
            name: api::meta::name(role).to_owned(),
        };
        self.roles.insert(key, rules_of(role).into());
    }

    /// Takes a role out.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(&RoleRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
    }

    /// Puts a RoleBinding or ClusterRoleBinding in, in the place of one of the same name.
    pub fn put_binding(&mut self, binding: &Value) {
        let binding = Arc::new(Binding::read(binding));
        self.remove_binding(&binding.namespace, &binding.name);
        let scope = self.scopes.entry(binding.namespace.clone()).or_default();
        for (holder, shown) in &binding.holders {
            let (held, name) = scope.held(holder);
            held.entry(name).or_default().insert(
                binding.name.clone(),
                (binding.clone(), shown.as_str().into()),
            );
        }
        scope.bindings.insert(binding.name.clone(), binding);
    }

    /// Takes a binding out.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(scope) = self.scopes.get_mut(namespace) else {
            return;
        };
        let Some(binding) = scope.bindings.remove(name) else {
            return;
        };
        for (holder, _) in &binding.holders {
            let (held, key) = scope.held(holder);
            if let Some(bindings) = held.get_mut(&key) {
                bindings.remove(name);
                if bindings.is_empty() {
                    held.remove(&key);
                }
            }
        }
        if scope.bindings.is_empty() {
            self.scopes.remove(namespace);
        }
    }

    /// The rules of a role; `None` where there is none.
    pub fn role(&self, role: &RoleRef) -> Option<&Arc<[Rule]>> {
        self.roles.get(role)
    }

    /// Whether the user may. Members of `system:masters` may do everything, whatever the bindings say.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is(user::MASTERS) {
            return Decision::Allow(String::new());
        }
        let namespace = match &attributes.target {
            Target::Path(_) => "",
            Target::Resource(at) => at.namespace,
        };
        let mut missing = Vec::new();
        for (binding, shown) in self.bindings(attributes.user, namespace) {
            match self.roles.get(&binding.role) {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow(binding.reason(shown));
                }
                Some(_) => {}
                None => missing.push(binding.role.missing()),
            }
        }
        Decision::NoOpinion(match aggregate(missing) {
            None => String::new(),
            Some(missing) => format!("RBAC: {missing}"),
        })
    }

    fn bindings<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a (Arc<Binding>, Arc<str>)> {
        let local = (!namespace.is_empty())
            .then(|| self.scopes.get(namespace))
            .flatten();
        self.scopes
            .get("")
            .into_iter()
            .chain(local)
            .flat_map(|scope| scope.for_user(user))
    }

    /// Every rule that holds for the user in the namespace, and which roles were looked for in vain.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Option<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for (binding, _) in self.bindings(user, namespace) {
            match self.roles.get(&binding.role) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => missing.push(binding.role.missing()),
            }
        }
        (rules, aggregate(missing))
    }
}

/// Several faults as Go's aggregate of errors shows them: each once, in brackets where there are several.
fn aggregate(faults: Vec<String>) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    for fault in faults {
        if !told.contains(&fault) {
            told.push(fault);
        }
    }
    match told.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}
