//! What a path and a method mean, before anything is looked up: resource or plain path, and the verb.

use http::Method;

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target<'a> {
    /// A path that names no resource: `/version`, `/apis`, `/openapi/v3/api/v1`.
    Path(&'a str),
    /// A resource.
    Resource(At<'a>),
}

/// A resource, an object or a subresource in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At<'a> {
    /// Empty for the core group.
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// Plural.
    pub(crate) resource: &'a str,
    pub(crate) name: Option<&'a str>,
    pub(crate) subresource: Option<&'a str>,
    /// What follows the subresource `proxy`, with its slash: a path of somebody else's.
    pub(crate) tail: &'a str,
    /// Whether more follows a subresource. Other API servers know what that means; this one has nothing there.
    pub(crate) deeper: bool,
    /// Whether the path begins with `watch`, which clients from before the parameter of that name write:
    /// `/api/v1/watch/namespaces/a/pods`.
    pub(crate) watch: bool,
}

impl<'a> Target<'a> {
    /// Reads a path; segments are taken as they stand, still percent-encoded.
    pub(crate) fn parse(path: &'a str) -> Self {
        Self::resource(path).map_or(Target::Path(path), Target::Resource)
    }

    fn resource(path: &'a str) -> Option<At<'a>> {
        let (head, tail) = proxied(path).unwrap_or((path, ""));
        Some(At {
            tail,
            ..Self::own(head)?
        })
    }

    fn own(path: &'a str) -> Option<At<'a>> {
        let mut segments = path.strip_prefix('/')?.trim_end_matches('/').split('/');
        let (group, version) = match segments.next()? {
            "api" => ("", segments.next()?),
            "apis" => (segments.next()?, segments.next()?),
            _ => return None,
        };
        let mut rest: Vec<&str> = segments.collect();
        let watch = rest.len() > 1 && rest[0] == "watch";
        if watch {
            rest.remove(0);
        }
        if rest.is_empty() || rest.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let at = |namespace, resource, tail: &[&'a str]| At {
            group,
            version,
            namespace,
            resource,
            name: tail.first().copied(),
            subresource: tail.get(1).copied(),
            tail: "",
            deeper: tail.len() > 2,
            watch,
        };
        // The core group is nobody else's.
        let fits = |count: usize| count <= 2 || !group.is_empty();
        match rest.as_slice() {
            // `namespaces/X/status` and `/finalize` are of the namespace itself; any other third segment is a
            // resource within it.
            ["namespaces", namespace, resource, tail @ ..]
                if !matches!(*resource, "status" | "finalize") =>
            {
                fits(tail.len()).then(|| at(Some(*namespace), resource, tail))
            }
            // The namespace is in the path and in the scope alike.
            ["namespaces", namespace, tail @ ..] => {
                let mut whole = vec![*namespace];
                whole.extend_from_slice(tail);
                fits(whole.len()).then(|| at(Some(*namespace), "namespaces", &whole))
            }
            [resource, tail @ ..] => fits(tail.len()).then(|| at(None, resource, tail)),
            [] => None,
        }
    }
}

/// Cuts a path behind the subresource `proxy` of a node, Pod or Service.
fn proxied(path: &str) -> Option<(&str, &str)> {
    // Of nearly all paths this is all that has to be asked.
    let rest = path
        .strip_prefix("/api/v1/")
        .filter(|rest| rest.contains("/proxy"))?;
    let segments: Vec<&str> = rest.splitn(6, '/').collect();
    let own = match segments.as_slice() {
        ["namespaces", _, "pods" | "services", _, "proxy", ..] => 5,
        ["nodes", _, "proxy", ..] => 3,
        _ => return None,
    };
    let length: usize = segments[..own]
        .iter()
        .map(|segment| segment.len() + 1)
        .sum();
    let end = path.len() - rest.len() + length - 1;
    Some(path.split_at(end))
}

/// The API verb of a request, in the words of Kubernetes' authorisation.
pub(crate) fn verb(method: &Method, target: &Target<'_>, watch: bool) -> &'static str {
    let named = matches!(target, Target::Resource(At { name: Some(_), .. }));
    let resource = matches!(target, Target::Resource(_));
    let old_watch = matches!(target, Target::Resource(At { watch: true, .. }));
    match (method.as_str(), resource, named) {
        ("GET" | "HEAD", true, _) if old_watch => "watch",
        ("GET" | "HEAD", true, false) if watch => "watch",
        ("GET" | "HEAD", true, false) => "list",
        ("GET" | "HEAD", _, _) => "get",
        ("POST", true, _) => "create",
        ("DELETE", true, false) => "deletecollection",
        ("PUT", true, _) => "update",
        ("POST", false, _) => "post",
        ("PUT", false, _) => "put",
        ("PATCH", _, _) => "patch",
        ("DELETE", _, _) => "delete",
        ("OPTIONS", _, _) => "options",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_proxy_is_left_alone() {
        for (path, tail) in [
            ("/api/v1/nodes/n/proxy", ""),
            ("/api/v1/nodes/n/proxy/", "/"),
            (
                "/api/v1/namespaces/a/pods/p/proxy//a/../%2f/",
                "//a/../%2f/",
            ),
            ("/api/v1/namespaces/a/pods/p/status", ""),
        ] {
            let Target::Resource(at) = Target::parse(path) else {
                panic!("{path} is a resource")
            };
            assert_eq!(at.tail, tail, "{path}");
        }
    }

    #[test]
    fn paths_read_as_kubernetes_reads_them() {
        #[rustfmt::skip]
        let cases = [
            // Group, version, namespace, resource, name, subresource.
            ("/", None),
            ("/version", None),
            ("/api", None),
            ("/api/v1", None),
            ("/api/v1/", None),
            ("/apis/apps", None),
            ("/apis/apps/v1", None),
            ("/api/v1/pods", Some(["", "v1", "", "pods", "", ""])),
            ("/api/v1/nodes/n1", Some(["", "v1", "", "nodes", "n1", ""])),
            ("/api/v1/nodes/n1/status", Some(["", "v1", "", "nodes", "n1", "status"])),
            ("/api/v1/namespaces", Some(["", "v1", "", "namespaces", "", ""])),
            ("/api/v1/namespaces/a", Some(["", "v1", "a", "namespaces", "a", ""])),
            ("/api/v1/namespaces/a/finalize", Some(["", "v1", "a", "namespaces", "a", "finalize"])),
            ("/api/v1/namespaces/a/pods", Some(["", "v1", "a", "pods", "", ""])),
            ("/api/v1/namespaces/a/pods/p/status", Some(["", "v1", "a", "pods", "p", "status"])),
            ("/apis/apps/v1/namespaces/a/deployments/d", Some(["apps", "v1", "a", "deployments", "d", ""])),
            ("/api/v1/namespaces/a/pods/p/proxy", Some(["", "v1", "a", "pods", "p", "proxy"])),
            ("/api/v1/namespaces/a/services/s:80/proxy/x//y/", Some(["", "v1", "a", "services", "s:80", "proxy"])),
            ("/api/v1/nodes/n/proxy/healthz", Some(["", "v1", "", "nodes", "n", "proxy"])),
            ("/api/v1/namespaces//pods", None),
            ("/api/v1/watch/pods", Some(["", "v1", "", "pods", "", ""])),
            ("/apis/apps/v1/watch/namespaces/a/deployments/d", Some(["apps", "v1", "a", "deployments", "d", ""])),
            ("/api/v1/namespaces/a/pods/p/exec/more", None),
            ("/apis/a.x/v1/namespaces/a/machines/m/portforward/22/tcp", Some(["a.x", "v1", "a", "machines", "m", "portforward"])),
        ];
        for (path, expected) in cases {
            let found = match Target::parse(path) {
                Target::Path(_) => None,
                Target::Resource(at) => {
                    let (namespace, name) = (
                        at.namespace.unwrap_or_default(),
                        at.name.unwrap_or_default(),
                    );
                    let subresource = at.subresource.unwrap_or_default();
                    Some([
                        at.group,
                        at.version,
                        namespace,
                        at.resource,
                        name,
                        subresource,
                    ])
                }
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
