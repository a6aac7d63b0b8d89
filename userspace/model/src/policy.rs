//! Who may speak with whom: policies, and the pods that they select.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{Protocol, Range};

/// Labels of a pod or namespace.
pub type Labels = BTreeMap<String, String>;

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKey {
    /// A ClusterNetworkPolicy of this name.
    Cluster(Arc<str>),
    /// A NetworkPolicy.
    Namespaced(Arc<str>, Arc<str>),
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyKey::Cluster(name) => f.write_str(name),
            PolicyKey::Namespaced(namespace, name) => write!(f, "{namespace}/{name}"),
        }
    }
}

/// When a policy's rules are asked: the lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before NetworkPolicies, by priority.
    Admin(u32),
    /// A NetworkPolicy: whoever one selects gets what one allows and nothing else.
    Namespace,
    /// For those whom no NetworkPolicy selects, by priority.
    Baseline(u32),
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// A mark of the object as it was written: of two that differ it differs too.
    pub mark: u64,
    /// Its place.
    pub tier: Tier,
    /// Whom it is about.
    pub subject: Selection,
    /// What others may begin with them; `None` where it says nothing of that.
    pub ingress: Option<Vec<Rule>>,
    /// What they may begin with others; `None` where it says nothing of that.
    pub egress: Option<Vec<Rule>>,
}

/// The two directions in which conversations begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];
}

impl Policy {
    /// What it says of a direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What becomes of what it is about.
    pub action: Action,
    /// The other end.
    pub peers: Peers,
    /// The server's ports.
    pub ports: Ports,
}

/// What becomes of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It may begin.
    Accept,
    /// It may not.
    Deny,
    /// The next tier says.
    Pass,
}

/// The other end of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peers {
    /// Anybody.
    All,
    /// Whoever is one of these.
    Some(Vec<Peer>),
}

/// Somebody at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods with addresses of their own.
    Pods(Selection),
    /// Addresses, pods' included.
    Block {
        /// These.
        range: Range,
        /// Without these.
        except: Vec<Range>,
    },
    /// Nodes with these labels, at the addresses that their objects name.
    Nodes(Selector),
}

/// Ports of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Everything, other protocols included.
    All,
    /// Any of these.
    Some(Vec<Port>),
}

/// Ports of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// From the first to the last of a protocol.
    Range(Protocol, u16, u16),
    /// The one of that name of the pod that serves; of any protocol where none is given.
    Named(Option<Protocol>, Arc<str>),
}

/// Pods, by labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selection {
    /// Of these namespaces.
    pub namespaces: Namespaces,
    /// With these labels.
    pub pods: Selector,
}

/// Namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespaces {
    /// One, by name.
    One(Arc<str>),
    /// By labels.
    Matching(Selector),
}

impl Selection {
    /// Whether it means pods of a namespace with such labels.
    #[must_use]
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let here = match &self.namespaces {
            Namespaces::One(name) => **name == *namespace,
            Namespaces::Matching(selector) => selector.matches(namespace_labels),
        };
        here && self.pods.matches(labels)
    }
}

/// Labels that are asked for: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(pub Vec<Requirement>);

/// One thing that is asked of labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label has none of these values, or is absent.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    Absent(String),
    /// Nothing holds: what was asked makes no sense.
    Never,
}

impl Selector {
    /// Whether labels are as asked.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn(key, values) => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::Never => false,
        })
    }
}

/// Names a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that runs, with addresses of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Any number that grows with the time of creation: of two pods with one address, the younger has it.
    pub created: u64,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It runs on this node.
    pub local: bool,
    /// Its ports that have names, in order.
    pub named_ports: Vec<(Arc<str>, Protocol, u16)>,
}

/// A pod of this node that uses the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostPod {
    /// The identifier that its cgroup is named after.
    pub uid: String,
    /// What policies go by; without addresses.
    pub pod: Pod,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// All that policies are decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Every policy.
    pub policies: BTreeMap<PolicyKey, Policy>,
    /// Those that mean less, or deny more, than is written in them: something there is not known.
    pub altered: BTreeSet<PolicyKey>,
    /// Every pod with addresses of its own.
    pub pods: BTreeMap<PodKey, Pod>,
    /// Pods of this node that use the node's network.
    pub host_pods: BTreeMap<PodKey, HostPod>,
    /// Labels of every namespace.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Every node, where a policy asks for some.
    pub nodes: BTreeMap<Arc<str>, Node>,
}

impl World {
    /// A namespace's labels; one that nobody has told of yet has none.
    #[must_use]
    pub fn namespace(&self, name: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces.get(name).unwrap_or(&NONE)
    }

    /// Whether a policy selects a pod.
    #[must_use]
    pub fn selects(&self, policy: &Policy, key: &PodKey, pod: &Pod) -> bool {
        let labels = self.namespace(&key.namespace);
        policy.subject.matches(&key.namespace, labels, &pod.labels)
    }
}
