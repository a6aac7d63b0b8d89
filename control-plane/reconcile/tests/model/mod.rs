//! A server as a value: it keeps objects, gives uids, versions and names, and tells the snapshot what changed.

use std::collections::{BTreeMap, BTreeSet};

use reconcile::{Key, Name, Origin, Protected, Snapshot, Target, Write, reconcile};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use view::Event;
use view::objects::Pod;

/// Kind, namespace, name.
type Id = (String, String, String);

pub(crate) struct Model {
    pub(crate) objects: BTreeMap<Id, Value>,
    snapshot: Snapshot,
    queue: BTreeSet<Key>,
    counter: u64,
}

impl Model {
    /// Every kind is listed, and nothing is there.
    pub(crate) fn new() -> Model {
        let mut model = Model {
            objects: BTreeMap::new(),
            snapshot: Snapshot::default(),
            queue: BTreeSet::new(),
            counter: 0,
        };
        model.snapshot.expect([config_maps()]);
        model.snapshot.expect([claims(), volumes(), classes()]);
        assert!(!model.snapshot.is_complete());
        for kind in KINDS {
            model.tell(kind, None, &Event::Restarted);
            model.tell(kind, None, &Event::Synced);
        }
        assert!(model.snapshot.is_complete());
        model
    }

    /// Creates or replaces an object. What is there keeps its uid.
    pub(crate) fn apply(&mut self, mut object: Value) {
        self.counter += 1;
        let kind = object["kind"].as_str().unwrap().to_owned();
        let meta = object["metadata"].as_object_mut().unwrap();
        if !meta.contains_key("name") {
            let prefix = meta.remove("generateName").unwrap();
            let taken = |number: &u64| {
                let name = format!("{}{number}", prefix.as_str().unwrap());
                let space = meta["namespace"].as_str().unwrap().to_owned();
                !self.objects.contains_key(&(kind.clone(), space, name))
            };
            let number = (1..).find(taken).unwrap();
            meta.insert(
                "name".into(),
                json!(format!("{}{number}", prefix.as_str().unwrap())),
            );
        }
        let id = id(&object);
        let uid = match self.objects.get(&id) {
            Some(before) => before["metadata"]["uid"].clone(),
            None if object["metadata"]["uid"].is_string() => object["metadata"]["uid"].clone(),
            None => json!(format!("uid-{}", self.counter)),
        };
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.counter.to_string());
        self.objects.insert(id, object.clone());
        self.tell(&kind, Some(object), &Event::Applied(()));
    }

    pub(crate) fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        self.counter += 1;
        let id = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        assert!(
            self.objects.remove(&id).is_some(),
            "no {kind} {namespace}/{name}"
        );
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.tell(kind, None, &Event::Deleted { namespace, name });
    }

    /// Reconciles until there is nothing more to write, and checks that it is so for every key. Returns the writes.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(key) = self.queue.pop_first() {
            assert!(log.len() < 2000, "does not settle: {log:#?}");
            for write in reconcile(&key, &self.snapshot) {
                log.push(write.to_string());
                self.perform(write);
            }
        }
        for key in self.keys() {
            assert_eq!(
                reconcile(&key, &self.snapshot),
                [],
                "{key:?} is not settled"
            );
        }
        log
    }

    fn keys(&self) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for ((kind, namespace, name), object) in &self.objects {
            keys.insert(Key::Owned(
                object["metadata"]["uid"].as_str().unwrap().into(),
            ));
            match kind.as_str() {
                "Service" | "Endpoints" => {
                    keys.insert(Key::Slices(Name::new(namespace, name)));
                    keys.insert(Key::Endpoints(Name::new(namespace, name)));
                    keys.insert(Key::Mirror(Name::new(namespace, name)));
                }
                "Pod" => {
                    keys.insert(Key::Pod(Name::new(namespace, name)));
                }
                "Namespace" => {
                    keys.insert(Key::Namespace(name.as_str().into()));
                }
                "PersistentVolumeClaim" => {
                    keys.insert(Key::Protected(Protected::Claim, Name::new(namespace, name)));
                }
                "PersistentVolume" => {
                    keys.insert(Key::Protected(Protected::Volume, Name::new("", name)));
                }
                "VolumeAttributesClass" => {
                    keys.insert(Key::Protected(Protected::Class, Name::new("", name)));
                }
                _ => {}
            }
        }
        keys
    }

    /// Does as a server does, and takes preconditions at their word.
    fn perform(&mut self, write: Write) {
        match write {
            Write::Create { target, object, .. } => {
                assert_eq!(object["kind"], kind(target));
                if object["metadata"]["name"].is_string() {
                    assert!(!self.objects.contains_key(&id(&object)), "exists: {object}");
                }
                self.apply(object);
            }
            Write::Replace {
                target,
                name,
                object,
            } => {
                let id = (
                    kind(target).to_owned(),
                    name.namespace.to_string(),
                    name.name.to_string(),
                );
                let before = &self.objects[&id];
                for field in ["uid", "resourceVersion", "name"] {
                    assert_eq!(
                        object["metadata"][field], before["metadata"][field],
                        "{field}"
                    );
                }
                let immutable = "addressType";
                assert_eq!(object[immutable], before[immutable], "{immutable}");
                self.apply(object);
            }
            Write::Delete {
                target,
                name,
                uid,
                resource_version,
            } => {
                let id = (
                    kind(target).to_owned(),
                    name.namespace.to_string(),
                    name.name.to_string(),
                );
                let meta = &self.objects[&id]["metadata"];
                assert_eq!(
                    (&meta["uid"], &meta["resourceVersion"]),
                    (&json!(uid), &json!(resource_version))
                );
                self.delete(kind(target), &name.namespace, &name.name);
            }
            Write::Remove {
                origin,
                name,
                uid,
                resource_version,
                unless_owned_by,
                at_once: _,
            } => {
                let id = self.at(&origin, &name, &uid, &resource_version);
                let uids: BTreeSet<&str> = self
                    .objects
                    .values()
                    .filter_map(|o| o["metadata"]["uid"].as_str())
                    .collect();
                if !unless_owned_by
                    .iter()
                    .any(|owner| uids.contains(owner.uid.as_str()))
                {
                    self.delete(&id.0, &id.1, &id.2);
                }
            }
            Write::SetOwners {
                origin,
                name,
                uid,
                resource_version,
                owners,
            } => {
                let id = self.at(&origin, &name, &uid, &resource_version);
                let mut object = self.objects[&id].clone();
                let refs = owners
                    .iter()
                    .map(|owner| json!({"kind": owner.kind, "name": owner.name, "uid": owner.uid}));
                object["metadata"]["ownerReferences"] = refs.collect();
                self.apply(object);
            }
            Write::SetFinalizers {
                origin,
                name,
                uid,
                resource_version,
                finalizers,
                unless_used,
            } => {
                if let Some(claim) = unless_used {
                    let pods = self.objects.values().filter(|o| o["kind"] == "Pod");
                    let mut pods = pods.map(|pod| Pod::deserialize(pod).unwrap());
                    assert!(!pods.any(|pod| claim.is_used_by(&pod)), "{claim:?}");
                }
                let id = self.at(&origin, &name, &uid, &resource_version);
                let mut object = self.objects[&id].clone();
                object["metadata"]["finalizers"] = json!(finalizers);
                if finalizers.is_empty() && object["metadata"]["deletionTimestamp"].is_string() {
                    self.delete(&id.0, &id.1, &id.2);
                } else {
                    self.apply(object);
                }
            }
            Write::Empty { namespace } => {
                let within: Vec<Id> = self
                    .objects
                    .keys()
                    .filter(|(_, within, _)| **within == *namespace)
                    .cloned()
                    .collect();
                for (kind, namespace, name) in within {
                    self.delete(&kind, &namespace, &name);
                }
            }
            Write::Finalize { namespace } => self.delete("Namespace", "", &namespace),
        }
    }

    /// The object that a write means, which must be as it was looked at.
    fn at(&self, origin: &Origin, name: &Name, uid: &str, version: &str) -> Id {
        let wanted = (name.namespace.to_string(), name.name.to_string());
        let mut found = self.objects.iter().filter(|((kind, namespace, name), _)| {
            let plural = format!("{}s", kind.to_lowercase())
                .replace("endpointss", "endpoints")
                .replace("classs", "classes");
            plural == *origin.plural && (namespace, name) == (&wanted.0, &wanted.1)
        });
        let (id, object) = found.next().unwrap();
        let meta = &object["metadata"];
        assert_eq!(
            (&meta["uid"], &meta["resourceVersion"]),
            (&json!(uid), &json!(version))
        );
        id.clone()
    }

    fn tell(&mut self, kind: &str, object: Option<Value>, event: &Event<()>) {
        fn typed<T: DeserializeOwned>(event: &Event<()>, object: Option<Value>) -> Event<T> {
            match event {
                Event::Restarted => Event::Restarted,
                Event::Synced => Event::Synced,
                Event::Deleted { namespace, name } => Event::Deleted {
                    namespace: namespace.clone(),
                    name: name.clone(),
                },
                Event::Applied(()) => {
                    Event::Applied(serde_json::from_value(object.unwrap()).unwrap())
                }
            }
        }
        let snapshot = &mut self.snapshot;
        self.queue.extend(match kind {
            "Service" => snapshot.fold_services(typed(event, object)),
            "Pod" => snapshot.fold_pods(typed(event, object)),
            "Node" => snapshot.fold_nodes(typed(event, object)),
            "EndpointSlice" => snapshot.fold_slices(typed(event, object)),
            "Endpoints" => snapshot.fold_endpoints(typed(event, object)),
            "Namespace" => snapshot.fold_namespaces(typed(event, object)),
            "ServiceAccount" => snapshot.fold_accounts(typed(event, object)),
            "PersistentVolumeClaim" => snapshot.fold_stored(&claims(), typed(event, object)),
            "PersistentVolume" => snapshot.fold_stored(&volumes(), typed(event, object)),
            "VolumeAttributesClass" => snapshot.fold_stored(&classes(), typed(event, object)),
            "ConfigMap" => snapshot.fold_others(&config_maps(), typed(event, object)),
            kind => panic!("kind {kind} is not followed"),
        });
    }
}

const KINDS: [&str; 11] = [
    "Service",
    "Pod",
    "Node",
    "EndpointSlice",
    "Endpoints",
    "Namespace",
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "VolumeAttributesClass",
];

fn config_maps() -> Origin {
    origin("", "configmaps", true)
}

fn claims() -> Origin {
    origin("", "persistentvolumeclaims", true)
}

fn volumes() -> Origin {
    origin("", "persistentvolumes", false)
}

fn classes() -> Origin {
    origin("storage.k8s.io", "volumeattributesclasses", false)
}

fn origin(group: &str, plural: &str, namespaced: bool) -> Origin {
    Origin {
        group: group.into(),
        version: "v1".into(),
        plural: plural.into(),
        namespaced,
    }
}

fn kind(target: Target) -> &'static str {
    match target {
        Target::EndpointSlice => "EndpointSlice",
        Target::Endpoints => "Endpoints",
        Target::ServiceAccount => "ServiceAccount",
    }
}

fn id(object: &Value) -> Id {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    (
        text(&object["kind"]),
        text(&meta["namespace"]),
        text(&meta["name"]),
    )
}
