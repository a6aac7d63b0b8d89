//! The resource table. A resource is a row: names, scope, verbs, subresources, printed columns, selectable fields,
//! and the functions that make Kubernetes' rules of it. Routes, discovery, OpenAPI, Table output and field selectors
//! read this table.

use serde_json::Value;
use time::OffsetDateTime;

use crate::field::FieldError;
use crate::kinds;

/// Every resource served, in the order in which discovery lists the groups.
pub static RESOURCES: &[&Resource] = &[
    &kinds::passing::BINDINGS,
    &kinds::passing::COMPONENT_STATUSES,
    &kinds::config::CONFIG_MAPS,
    &kinds::endpoints::ENDPOINTS,
    &kinds::event::CORE_EVENTS,
    &kinds::limits::LIMIT_RANGES,
    &kinds::namespace::NAMESPACES,
    &kinds::node::NODES,
    &kinds::persistent_volume_claim::PERSISTENT_VOLUME_CLAIMS,
    &kinds::persistent_volume::PERSISTENT_VOLUMES,
    &kinds::pod::PODS,
    &kinds::replica_set::POD_TEMPLATES,
    &kinds::replica_set::REPLICATION_CONTROLLERS,
    &kinds::quotas::RESOURCE_QUOTAS,
    &kinds::config::SECRETS,
    &kinds::service_account::SERVICE_ACCOUNTS,
    &kinds::service::SERVICES,
    &kinds::api_service::API_SERVICES,
    &kinds::stateful_set::CONTROLLER_REVISIONS,
    &kinds::daemon_set::DAEMON_SETS,
    &kinds::deployment::DEPLOYMENTS,
    &kinds::replica_set::REPLICA_SETS,
    &kinds::stateful_set::STATEFUL_SETS,
    &kinds::event::EVENTS,
    &kinds::review::SELF_SUBJECT_REVIEWS,
    &kinds::review::TOKEN_REVIEWS,
    &kinds::review::LOCAL_SUBJECT_ACCESS_REVIEWS,
    &kinds::review::SELF_SUBJECT_ACCESS_REVIEWS,
    &kinds::review::SELF_SUBJECT_RULES_REVIEWS,
    &kinds::review::SUBJECT_ACCESS_REVIEWS,
    &kinds::autoscaler::AUTOSCALERS,
    &kinds::autoscaler::AUTOSCALERS_V1,
    &kinds::cron_job::CRON_JOBS,
    &kinds::job::JOBS,
    &kinds::certificate_request::CERTIFICATE_SIGNING_REQUESTS,
    &kinds::ingress::INGRESS_CLASSES,
    &kinds::ingress::INGRESSES,
    &kinds::service_cidr::IP_ADDRESSES,
    &kinds::network_policy::NETWORK_POLICIES,
    &kinds::service_cidr::SERVICE_CIDRS,
    &kinds::disruption_budget::DISRUPTION_BUDGETS,
    &kinds::rbac::CLUSTER_ROLE_BINDINGS,
    &kinds::rbac::CLUSTER_ROLES,
    &kinds::rbac::ROLE_BINDINGS,
    &kinds::rbac::ROLES,
    &kinds::csi::CSI_DRIVERS,
    &kinds::csi::CSI_NODES,
    &kinds::csi::CSI_STORAGE_CAPACITIES,
    &kinds::storage_class::STORAGE_CLASSES,
    &kinds::storage_class::VOLUME_ATTACHMENTS,
    &kinds::storage_class::VOLUME_ATTRIBUTES_CLASSES,
    &kinds::admission_policy::MUTATING_ADMISSION_POLICIES,
    &kinds::admission_policy::MUTATING_ADMISSION_POLICY_BINDINGS,
    &kinds::webhooks::MUTATING_WEBHOOK_CONFIGURATIONS,
    &kinds::admission_policy::VALIDATING_ADMISSION_POLICIES,
    &kinds::admission_policy::VALIDATING_ADMISSION_POLICY_BINDINGS,
    &kinds::webhooks::VALIDATING_WEBHOOK_CONFIGURATIONS,
    &kinds::priority_class::PRIORITY_CLASSES,
    &kinds::lease::LEASES,
    &kinds::priority_class::RUNTIME_CLASSES,
    &kinds::endpoint_slice::ENDPOINT_SLICES,
    &kinds::devices::DEVICE_CLASSES,
    &kinds::devices::RESOURCE_CLAIMS,
    &kinds::devices::RESOURCE_CLAIM_TEMPLATES,
    &kinds::devices::RESOURCE_SLICES,
    &kinds::flow_control::FLOW_SCHEMAS,
    &kinds::flow_control::PRIORITY_LEVEL_CONFIGURATIONS,
];

/// The row of a resource, by what stands in the path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .copied()
        .find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The row of a resource, by what stands in `apiVersion` and `kind`.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .copied()
        .find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// One resource. All objects are JSON values; the functions never fail on nonsense, they report it.
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// As in `kind:`.
    pub kind: &'static str,
    /// `kind:` of a list of them.
    pub list_kind: &'static str,
    /// As in the path.
    pub plural: &'static str,
    /// For people who type.
    pub singular: &'static str,
    /// For people who type little.
    pub short_names: &'static [&'static str],
    /// Groups of resources such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What can be done to it, sorted.
    pub verbs: &'static [&'static str],
    /// Subresources served, sorted by name.
    pub subresources: &'static [Subresource],
    /// Where objects are stored, as Kubernetes lays etcd out; without a slash at the end.
    pub storage_prefix: &'static str,
    /// Name of the schema.
    pub definition: &'static str,
    /// What a name must look like.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of the object's wishes.
    pub has_generation: bool,
    /// Whether an update without resourceVersion is allowed.
    pub unconditional_update: bool,
    /// Whether PUT creates what is absent.
    pub create_on_update: bool,
    /// Whether a deletion leaves the object for a grace period where the object asks for one.
    pub graceful_deletion: bool,
    /// Whether the answer to a deletion is the object that is gone, in place of a Status.
    pub returns_deleted: bool,
    /// Printed columns.
    pub columns: &'static [Column],
    /// The cells of a row, as many as there are columns. The time is the server's now.
    pub cells: fn(&Value, OffsetDateTime) -> Vec<Value>,
    /// Field labels beyond `metadata.name` and `metadata.namespace` that selectors may name.
    pub fields: &'static [Field],
    /// Fills what the author left to the server, before anything is compared or checked.
    pub default: fn(&mut Value),
    /// Clears and sets what a creator has no say in, the status of most kinds among it. A Node brings its own.
    pub prepare_create: fn(&mut Value),
    /// The same for an update; `new` is what was sent, `old` what is stored.
    pub prepare_update: fn(&mut Value, &Value),
    /// Everything wrong with an object, metadata apart.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// Everything wrong with going from `old` to `new`, metadata apart. Includes [`Resource::validate`] where that
    /// holds for updates.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Why an object is never deleted, where it is one that the cluster needs.
    pub keeps: fn(&Value) -> Option<&'static str>,
    /// Clears and sets what a writer of the status has no say in.
    pub prepare_status: fn(&mut Value, &Value),
    /// What a writer of a good object should hear: `old` is `None` for a new one. Asked after validation; subresources
    /// are not asked about.
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// What everybody who asks for this resource hears, as `v1 Endpoints is deprecated in v1.33+`; empty: nothing.
    pub deprecation: &'static str,
    /// Everything wrong with a write of the status, metadata apart, from `old` to `new`. Without it
    /// [`Resource::validate_update`] looks at those writes too.
    pub validate_status: Option<fn(&Value, &Value) -> Vec<FieldError>>,
    /// From the stored form to this version's, and back, where two versions share one storage.
    pub conversion: Option<Conversion>,
    /// Where its replicas stand, where it has the subresource `scale`.
    pub scale: Option<&'static crate::scale::Scale>,
    /// The rules of a custom resource, which come and change at run time.
    pub custom: Option<&'static crate::custom::Slot>,
}

/// How objects of this row are changed into the stored form of another row and back.
pub struct Conversion {
    /// To what is stored.
    pub to_stored: fn(&mut Value),
    /// To what is served.
    pub from_stored: fn(&mut Value),
}

/// A part of an object with a path of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subresource {
    /// As in the path, for instance `status`.
    pub name: &'static str,
    /// Kind of the body; the resource's own where empty.
    pub kind: &'static str,
    /// Group and version of that kind where they differ from the resource's.
    pub group_version: Option<(&'static str, &'static str)>,
    /// What can be done to it, sorted.
    pub verbs: &'static [&'static str],
}

/// A printed column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// For people.
    pub description: &'static str,
    /// 0: always shown; 1: in wide output.
    pub priority: u8,
}

/// A field that selectors may name.
#[derive(Clone, Copy)]
pub struct Field {
    /// For instance `status.phase`.
    pub label: &'static str,
    /// Its value as a text.
    pub get: fn(&Value) -> String,
}

/// What the name of an object must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRule {
    /// RFC 1123 subdomain: labels with dots between, at most 253 bytes.
    Subdomain,
    /// RFC 1123 label, at most 63 bytes.
    Label,
    /// RFC 1035 label, at most 63 bytes: a letter comes first.
    Label1035,
    /// Anything that can stand between two slashes of a path.
    PathSegment,
    /// An IP address in its canonical form; the row's own validation says so.
    Address,
}

/// The verbs of most resources.
pub const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// The status subresource.
pub const STATUS: Subresource = Subresource {
    name: "status",
    kind: "",
    group_version: None,
    verbs: &["get", "patch", "update"],
};

/// The scale subresource.
pub const SCALE: Subresource = Subresource {
    name: "scale",
    kind: "Scale",
    group_version: Some(("autoscaling", "v1")),
    verbs: &["get", "patch", "update"],
};

impl Resource {
    /// Whether it is this kind of this group. A custom resource may be called as a built-in one of another group is.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        (self.group, self.kind) == (group, kind)
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path below which the group version is served: `/api/v1` or `/apis/group/version`.
    pub fn root_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The storage key of an object; `namespace` is ignored where the resource has none.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}/{namespace}/{name}", self.storage_prefix)
        } else {
            format!("{}/{name}", self.storage_prefix)
        }
    }

    /// What every storage key of a namespace begins with; of the whole resource where `namespace` is empty.
    pub fn key_prefix(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/{namespace}/", self.storage_prefix)
        } else {
            format!("{}/", self.storage_prefix)
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether `status` is written through a path of its own, and ignored elsewhere.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The value of a selectable field; `None` where the label is not supported.
    pub fn field(&self, object: &Value, label: &str) -> Option<String> {
        match label {
            "metadata.name" => Some(crate::value::text(object, &["metadata", "name"]).to_owned()),
            "metadata.namespace" if self.namespaced => {
                Some(crate::value::text(object, &["metadata", "namespace"]).to_owned())
            }
            _ => self
                .fields
                .iter()
                .find(|f| f.label == label)
                .map(|f| (f.get)(object))
                .or_else(|| self.rules()?.field(object, label)),
        }
    }

    /// Whether selectors may name the field.
    pub fn selectable(&self, label: &str) -> bool {
        label == "metadata.name"
            || (label == "metadata.namespace" && self.namespaced)
            || self.fields.iter().any(|f| f.label == label)
            || self
                .rules()
                .is_some_and(|rules| rules.selectable().iter().any(|known| known == label))
    }

    /// The rules of a custom resource, as its definition has them now.
    pub fn rules(&self) -> Option<std::sync::Arc<dyn crate::custom::Rules>> {
        self.custom.and_then(crate::custom::Slot::rules)
    }

    /// The content types of patches, as refusals list them. Of custom resources no type says how lists merge.
    pub fn patch_types(&self) -> &'static [&'static str] {
        const TYPES: [&str; 4] = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
            "application/strategic-merge-patch+json",
        ];
        let known = TYPES.len() - usize::from(self.custom.is_some());
        &TYPES[..known]
    }

    /// [`Resource::default`], and the defaults of a custom resource's schema.
    pub fn fill(&self, object: &mut Value) {
        (self.default)(object);
        if let Some(rules) = self.rules() {
            rules.default(object);
        }
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.plural)
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.plural, self.group, self.version) == (other.plural, other.group, other.version)
    }
}

impl Eq for Resource {}

/// Base for rows: `Resource { ..BASE }`.
pub const BASE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage_prefix: "",
    definition: "",
    name_rule: NameRule::Subdomain,
    has_generation: false,
    unconditional_update: true,
    create_on_update: false,
    graceful_deletion: false,
    returns_deleted: false,
    columns: &[],
    cells: |_, _| Vec::new(),
    fields: &[],
    default: |_| {},
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    validate: |_| Vec::new(),
    validate_update: |_, _| Vec::new(),
    keeps: |_| None,
    prepare_status: |_, _| {},
    warnings: |_, _| Vec::new(),
    deprecation: "",
    validate_status: None,
    conversion: None,
    scale: None,
    custom: None,
};

/// The first column of every table.
pub(crate) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique among its kind in its namespace.",
    priority: 0,
};

/// The column of kinds whose tables show when, not how long ago.
pub(crate) const CREATED_AT: Column = typed(
    "Created At",
    "date",
    "When the object was created, by the server's clock.",
);

/// The usual last column.
pub(crate) const AGE: Column = column("Age", "Time since the object was created.");

/// A column of texts.
pub(crate) const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// A column of `integer`, `boolean` or `date`.
pub(crate) const fn typed(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        kind,
        format: "",
        description,
        priority: 0,
    }
}

/// A column of texts for wide output.
pub(crate) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 1,
    }
}
