//! What is known of a request and of its namespace before there are any: their members, as Kubernetes declares them to
//! expressions. What else they hold has no name there.

use std::sync::{Arc, LazyLock};

use cel::types::{Decl, DeclKind, FieldDecl, ListKind};

/// Of `request`: an AdmissionRequest without its uid and its objects, which have names of their own.
pub(super) static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[("group", text()), ("version", text()), ("kind", text())],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", list(text())),
            ("extra", map(list(text()))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", decl(DeclKind::Bool)),
            ("options", Decl::any()),
        ],
    )
});

/// Of `namespaceObject`.
pub(super) static NAMESPACE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let time = || decl(DeclKind::Timestamp);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map(text())),
            ("annotations", map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", decl(DeclKind::Int)),
            ("deletionTimestamp", time()),
            ("generation", decl(DeclKind::Int)),
            ("resourceVersion", text()),
            ("finalizers", list(text())),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let status = object(
        "kubernetes.NamespaceStatus",
        &[("conditions", list(condition)), ("phase", text())],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", list(text()))]);
    object(
        "kubernetes.Namespace",
        &[("metadata", metadata), ("spec", spec), ("status", status)],
    )
});

fn decl(kind: DeclKind) -> Arc<Decl> {
    let max = u64::MAX;
    Arc::new(Decl { kind, max })
}

fn text() -> Arc<Decl> {
    decl(DeclKind::String)
}

fn list(items: Arc<Decl>) -> Arc<Decl> {
    let list = ListKind::Atomic;
    decl(DeclKind::List { items, list })
}

fn map(values: Arc<Decl>) -> Arc<Decl> {
    decl(DeclKind::Map(values))
}

/// Members are called by their own names, words of the language among them.
fn object(name: &str, members: &[(&str, Arc<Decl>)]) -> Arc<Decl> {
    let mut fields: Vec<FieldDecl> = members
        .iter()
        .map(|(name, decl)| FieldDecl {
            escaped: (*name).into(),
            name: (*name).into(),
            decl: decl.clone(),
        })
        .collect();
    fields.sort_by(|a, b| a.escaped.cmp(&b.escaped));
    decl(DeclKind::Object {
        name: name.into(),
        fields: fields.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::expression::{Gives, Vocabulary, compile};

    #[test]
    fn members_are_those_that_kubernetes_declares() {
        for source in [
            "request.dryRun",
            "request.namespace == 'a' && request.subResource == ''",
            "request.userInfo.extra['k'][0] == 'v' && 'g' in request.userInfo.groups",
            "request.options.anything && request.requestKind.kind == 'Pod'",
            "namespaceObject.metadata.labels.env == 'prod' && namespaceObject != null",
            "namespaceObject.status.conditions.exists(c, c.type == 'x' && c.lastTransitionTime < timestamp('2026-01-02T03:04:05Z'))",
        ] {
            for vocabulary in [Vocabulary::default(), Vocabulary::of_policy(false)] {
                let compiled = compile(source, Gives::Bool, &vocabulary);
                assert_eq!(compiled.as_ref().as_ref().err(), None, "{source}");
            }
        }
        for (source, told) in [
            ("request.foo == 1", "undefined field 'foo'"),
            ("request.object == null", "undefined field 'object'"),
            ("request.uid == ''", "undefined field 'uid'"),
            ("request.kind.foo == ''", "undefined field 'foo'"),
            (
                "request.name == 1",
                "found no matching overload for '_==_' applied to '(string, int)'",
            ),
            ("request.name", "must evaluate to bool"),
            ("namespaceObject.foo == 'a'", "undefined field 'foo'"),
            (
                "namespaceObject.metadata.managedFields.size() == 0",
                "undefined field 'managedFields'",
            ),
        ] {
            let compiled = compile(source, Gives::Bool, &Vocabulary::default());
            let why = compiled.as_ref().as_ref().unwrap_err();
            assert!(why.contains(told), "{source}: {why}");
        }
    }
}
